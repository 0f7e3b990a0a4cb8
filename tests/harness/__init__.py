"""Harnesses for "nothing lost": each breaks a run in one way, at every place there is, and counts what came of it.

- ``disks``: disks in the place of ``files.disk`` that fail, tear or die at any operation, or keep a record of all.
- ``power``: what may be left on a disk that lost its power, from such a record.
- ``lives``: what a run is doing when it is broken (train, resume, densify, fork), and the checks after it.
- ``forebear``, ``child``: processes that are really killed.
- ``test_faults``, ``test_power``, ``test_kills``, ``test_signals``, ``test_locks``, ``test_full_disk``,
  ``test_segments``, ``test_not_finite``, ``test_leaks``, ``test_digests``: the promises, each with its count and,
  where it looks for damage, with a control that must fail.

Each prints its figure: ``pytest -s tests/harness``, and with ``-m slow`` the full counts.
"""

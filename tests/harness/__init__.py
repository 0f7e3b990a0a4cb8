"""Harnesses for the promise that nothing is lost. Each breaks runs in one way, everywhere, and counts the outcomes.

- ``disks``: replacements of `syscalls.disk` that fail, tear, crash at any operation, or count the operations.
- ``power``: a record of all operations on a disk, and the states that a loss of power can leave.
- ``scenarios``: the activities that are broken (train, resume, densify, fork), and the checks afterwards.
- ``fork_server``, ``fork_server_process``: processes that are really killed.
- ``test_faults``, ``test_power``, ``test_kills``, ``test_signals``, ``test_locks``, ``test_full_disk``,
  ``test_segments``, ``test_not_finite``, ``test_leaks``, ``test_digests``: the tests. Each test that looks for damage
  has a control that must fail.

Each test prints its counts with ``pytest -s tests/harness``; ``-m slow`` runs the full numbers of cases.
"""

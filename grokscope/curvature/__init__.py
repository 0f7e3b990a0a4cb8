"""Curvature from products with a matrix alone: eigenvalues, traces, spectral density. Knows nothing of training.

Each result carries what it is worth: an eigenvalue its residual, an estimate its standard error.
"""

from grokscope.curvature.density import Quadrature, quadrature
from grokscope.curvature.lanczos import Eigenpair, Eigenpairs, eigenpairs, lanczos
from grokscope.curvature.products import Product, gauss_newton, hvp, preconditioned
from grokscope.curvature.traces import Estimate, Samples, hutchinson, ratio, samples

__all__ = [
    "Eigenpair",
    "Eigenpairs",
    "Estimate",
    "Product",
    "Quadrature",
    "Samples",
    "eigenpairs",
    "gauss_newton",
    "hutchinson",
    "hvp",
    "lanczos",
    "preconditioned",
    "quadrature",
    "ratio",
    "samples",
]

"""Eigenvalues, traces and spectral densities of matrices that are known only through their products with vectors.

Each result includes its accuracy: an eigenvalue has a residual, and an estimate has a standard error. Nothing here
depends on training.
"""

from grokscope.curvature.density import Quadrature, quadrature
from grokscope.curvature.lanczos import Eigenpair, Eigenpairs, eigenpairs, lanczos, refined
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
    "refined",
    "samples",
]

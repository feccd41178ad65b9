"""Which versions run, for reports of faults."""

__version__ = "0.2.0"
SITE = "https://sklearn-icon.readthedocs.io/en/stable"  # as in pyproject.toml; RELEASING.md says what is set up there

_LIBRARIES = (
    "numpy",
    "scipy",
    "scikit-learn",
    "torch",
    "numba",
    "pynndescent",
    "joblib",
    "threadpoolctl",
    "matplotlib",
)


def show_versions() -> None:
    """Print the versions of the library, of Python, of what it builds on, and the threads and devices found.

    Examples
    --------
    >>> import sklearn_icon
    >>> sklearn_icon.show_versions()  # doctest: +ELLIPSIS
    sklearn_icon: ...
    """
    import platform
    import sys
    from importlib.metadata import PackageNotFoundError, version

    import torch
    from threadpoolctl import threadpool_info

    print(f"sklearn_icon: {__version__}")
    print(f"python: {sys.version.split()[0]}, {platform.platform()}")
    for name in _LIBRARIES:
        try:
            print(f"{name}: {version(name)}")
        except PackageNotFoundError:
            print(f"{name}: not installed")
    print(
        f"torch: {torch.get_num_threads()} threads, CUDA {torch.version.cuda}, GPU found: {torch.cuda.is_available()}"
    )
    for pool in threadpool_info():
        print(f"{pool['internal_api']}: {pool['num_threads']} threads, version {pool.get('version')}")

"""serve.py ADDRESS MODULE: serve the WSGI `application` of a module."""

from __future__ import annotations

import importlib
import sys
import warnings

warnings.simplefilter("ignore")
address, module = sys.argv[1:3]
sys.argv = [module]  # the applications read the command line themselves

import one_process  # noqa: E402, F401

application = importlib.import_module(module).application

import waitress  # noqa: E402

waitress.serve(application, listen=address, threads=8, ident=None)

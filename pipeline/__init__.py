"""Stages of dvc.yaml, one program each: parse, load, call one function of `hrvgan`, write."""

import hrvgan  # noqa: F401  Before torch: it sets how torch's threads wait.

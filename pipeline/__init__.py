"""Stages of dvc.yaml, one program each: parse, load, call one function of `hrvgan`, write."""

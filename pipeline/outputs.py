"""Outputs that DVC has made for runs and data sets, active or not."""

from pathlib import Path


def keep_inactive() -> None:
    """Have DVC forget that it made the outputs of inactive runs and data sets: it deletes what it knows and params.yaml
    does not name, at each experiment and at `dvc checkout`."""
    from dvc.repo import Repo

    with Repo() as repo:
        used = {Path(out.fspath) for out in repo.index.outs if out.protocol == "local"}
        with repo.state.links as links:
            for path in [path for path in links if Path(repo.root_dir, path) not in used]:
                del links[path]


def restore() -> list[str]:
    """Check out those outputs of active stages that are missing and in DVC's cache; returns their paths."""
    from dvc.repo import Repo

    with Repo() as repo:
        outs = [out for out in repo.index.outs if out.use_cache and out.hash_info and out.protocol == "local"]
        missing = [str(out) for out in outs if not out.exists and not out.changed_cache()]
        if missing:
            repo.checkout(targets=missing)
        return missing

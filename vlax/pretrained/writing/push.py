"""An export on its way to the Hugging Face hub. Nothing is sent unless somebody asked for it and has a token that may write."""

import os
from pathlib import Path

from vlax.errors import VlaxError
from vlax.storage.hub import HUB_ID


def check(name: str) -> None:
    """VlaxError for a name that is no USER/NAME, and where there is no token: before an export is written for minutes."""
    import huggingface_hub

    if not HUB_ID.fullmatch(name):
        raise VlaxError(f"--push={name}: a repository of the hub is USER/NAME or ORGANISATION/NAME")
    if not huggingface_hub.get_token():
        raise VlaxError(
            "--push needs a token of the Hugging Face hub that may write: run `hf auth login`, or set HF_TOKEN "
            "(https://huggingface.co/settings/tokens)"
        )


def push(directory: Path, name: str, *, private: bool = True) -> str:
    """Uploads the files of `directory` to the model repository `name`, which is made where it is not there yet; its address.

    private: of a repository that is made; one that is there stays as visible as it is. VlaxError for whatever the hub refuses.
    """
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError

    check(name)
    api = huggingface_hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    try:
        repository = api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(folder_path=directory, repo_id=name, commit_message="Export of vlax")
    except HfHubHTTPError as error:
        reason = (error.server_message or str(error)).strip().splitlines()[0]
        raise VlaxError(f"the hub refused {name} ({reason}); the token must be allowed to write there") from None
    except OSError as error:  # no network, in the client's words
        raise VlaxError(
            f"the hub was not reached ({str(error).strip().splitlines()[0]}); nothing is lost: push again"
        ) from None
    return str(repository)

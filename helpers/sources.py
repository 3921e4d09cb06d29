"""Where models come from: the hub or its mirror, ModelScope, the offline copy; the first that answers is used."""

import functools
import importlib.util
import os
import threading
from concurrent.futures import Future

LIMIT = 5.0  # seconds that a server has to answer


def answers(address: str) -> bool:
    """Return whether the web server at ``address`` answers within ``LIMIT``, name look-up and redirects included.

    The request runs in a thread of its own: a client's own time limit covers neither the look-up nor the sum.
    Raises ValueError when ``address`` does not begin with http:// or https://.
    """
    import httpx

    if not address.startswith(("http://", "https://")):
        raise ValueError(f"{address!r} is no web address: HF_ENDPOINT must begin with https://")
    future = Future()

    def ask():
        try:
            future.set_result(httpx.head(address, timeout=LIMIT, follow_redirects=True).status_code < 500)
        except Exception as error:
            future.set_exception(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        return future.result(timeout=LIMIT)
    except (httpx.HTTPError, TimeoutError):
        return False


@functools.cache
def model_source() -> str:
    """Return "hub" (or the mirror in ``HF_ENDPOINT``), "modelscope" or "offline", and print the choice in one line.

    They are tried in this order, once per process; each has ``LIMIT`` seconds. ModelScope needs its own package: its
    server does not speak the hub's protocol, so huggingface_hub cannot download from it. ``HF_HUB_OFFLINE=1``
    means offline without asking anybody.
    """
    if os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "true", "yes", "on"):
        print("模型来源：离线（HF_HUB_OFFLINE=1）")
        return "offline"
    from huggingface_hub import constants

    hub, modelscope = constants.ENDPOINT, os.environ.get("MODELSCOPE_ENDPOINT") or "https://modelscope.cn"
    if answers(hub):
        print(f"模型来源：{hub}")
        return "hub"
    why = f"{hub} 在 {LIMIT:g} 秒内没有回应"
    if answers(modelscope):
        if importlib.util.find_spec("modelscope"):
            print(f"模型来源：{modelscope}（{why}）")
            return "modelscope"
        why += f"；{modelscope} 能连上，要用它先 pip install modelscope，再重启内核"
    else:
        why += f"，{modelscope} 也没有"
    print(f"模型来源：离线（{why}）")
    return "offline"

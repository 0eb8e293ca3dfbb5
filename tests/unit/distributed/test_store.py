"""What processes tell each other in their store, with torch's own stores."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import torch.distributed as dist

from lightning_watt.distributed.store import SharedStore, StoreGone, default_store


@pytest.fixture(params=["hash", "tcp", "prefixed"])
def store(request: Any) -> SharedStore:
    if request.param == "hash":
        return SharedStore(dist.HashStore(), "here")
    tcp = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    return SharedStore(dist.PrefixStore("a group", tcp) if request.param == "prefixed" else tcp, "here")


def test_the_first_word_stands(store):
    assert store.set_if_absent("who", b"one") == b"one"
    assert store.set_if_absent("who", b"two") == b"one"
    store.set("who", b"three")
    assert store.get(["who"]) == {"who": b"three"}


def test_what_is_not_there_is_not_waited_for_without_a_limit(store):
    store.set("a", b"1")
    assert store.wait(["a", "b"], 0.05) == {"a": b"1"}
    store.set("b", b"\x00\xff")
    assert store.wait(["a", "b"], 60) == {"a": b"1", "b": b"\x00\xff"}
    store.delete("a")
    store.delete("never there")
    assert store.get(["a", "b"]) == {"b": b"\x00\xff"}


def test_nobody_elses_keys_are_touched():
    whole = dist.HashStore()
    whole.set("who", "the training")
    assert SharedStore(whole, "ours").set_if_absent("who", b"us") == b"us"
    assert whole.get("who") == b"the training"


def test_a_store_whose_process_has_ended_is_gone():
    master = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=5))
    client = dist.TCPStore("127.0.0.1", master.port, is_master=False, timeout=timedelta(seconds=5))
    ours = SharedStore(client, "here")
    ours.set("a", b"1")
    del master
    with pytest.raises(StoreGone, match="does not answer"):
        ours.wait(["b"], 60)


def test_without_a_process_group_there_is_none():
    assert default_store("here") is None

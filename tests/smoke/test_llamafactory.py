"""The contract on the real LLaMA-Factory."""

from tests.smoke.contract import BackendContract


class TestLlamaFactory(BackendContract):
    backend = "llamafactory"

"""The contract on the real axolotl."""

from tests.smoke.contract import BackendContract


class TestAxolotl(BackendContract):
    backend = "axolotl"

"""What the processes of vLLM's engine do beside their own work; the engine imports this there, by its name."""

from __future__ import annotations

import os
import select
import signal
from threading import Thread
from typing import Any


class Worker:
    """Added to vLLM's class of workers: its methods are called by name (`LLM.collective_rpc`)."""

    model_runner: Any

    def exchange_weights(self, folder: str) -> None:
        """Read the weights of `folder`, all of them, into the layers that are there.

        On a CPU vLLM multiplies by a packed copy of each layer's weights. A head that shares its weights with the
        embeddings has none in a file, so that vLLM leaves its copy as it was: it is packed again.
        """
        from vllm.model_executor.layers.vocab_parallel_embedding import (  # type: ignore[import-not-found]
            ParallelLMHead,
        )
        from vllm.platforms import current_platform  # type: ignore[import-not-found]

        self.model_runner.reload_weights(weights_path=folder)
        if current_platform.is_cpu():
            for layer in self.model_runner.get_model().modules():
                if isinstance(layer, ParallelLMHead):
                    layer.quant_method.process_weights_after_loading(layer)

    def end_with(self, leader: int) -> None:
        """From here on the engine is killed when the process `leader` ends, however that ends: it goes on without."""
        ended = os.pidfd_open(leader)
        engine = [pid for pid in (os.getppid(), os.getpid()) if pid != leader]  # it may have its worker in itself

        def watch() -> None:
            select.select([ended], [], [])
            for pid in engine:
                os.kill(pid, signal.SIGKILL)

        Thread(target=watch, daemon=True).start()

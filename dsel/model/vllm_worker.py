"""What the processes of vLLM's engine do beside their own work; the engine imports this there, by its name.

That is before it reads any weights, and from then on it ends with the process that has started it.
"""

from __future__ import annotations

from typing import Any

from dsel.distributed import end_with_leader

end_with_leader()


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

"""ONNX Runtime's execution providers that an artifact may name, and the options it may give them.

Only options that choose how to compute are let through. Others name files, such as the TensorRT provider's plug-in
libraries, which are loaded as code, or pass addresses in memory; they belong to a host, not to an artifact.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hone.artifact import Artifact
from hone.errors import did_you_mean

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"

OPTIONS: dict[str, frozenset[str]] = {
    CPU: frozenset(),
    CUDA: frozenset(
        {
            "arena_extend_strategy", "cudnn_conv1d_pad_to_nc1d", "cudnn_conv_algo_search",
            "cudnn_conv_use_max_workspace", "device_id", "do_copy_in_default_stream", "enable_cuda_graph",
            "enable_skip_layer_norm_strict_mode", "fuse_conv_bias", "gpu_mem_limit", "prefer_nhwc", "sdpa_kernel",
            "tunable_op_enable", "tunable_op_max_tuning_duration_ms", "tunable_op_tuning_enable",
            "use_ep_level_unified_stream", "use_tf32",
        }
    ),
    TENSORRT: frozenset(
        {
            "device_id", "trt_auxiliary_streams", "trt_bf16_enable", "trt_build_heuristics_enable",
            "trt_builder_optimization_level", "trt_context_memory_sharing_enable", "trt_cuda_graph_enable",
            "trt_detailed_build_log", "trt_dla_core", "trt_dla_enable", "trt_engine_cache_enable",
            "trt_engine_hw_compatible", "trt_force_sequential_engine_build", "trt_force_timing_cache",
            "trt_fp16_enable", "trt_int8_enable", "trt_layer_norm_fp32_fallback", "trt_max_partition_iterations",
            "trt_max_workspace_size", "trt_min_subgraph_size", "trt_op_types_to_exclude", "trt_profile_max_shapes",
            "trt_profile_min_shapes", "trt_profile_opt_shapes", "trt_sparsity_enable", "trt_tactic_sources",
            "trt_timing_cache_enable",
        }
    ),
}  # fmt: skip


def option_problem(provider: str, options: Mapping[str, Any]) -> str:
    """Return which option of a provider an artifact may not carry, and why, or an empty string."""
    allowed = OPTIONS.get(provider)
    if allowed is None:
        return f"'{provider}' is no provider that an artifact may name{did_you_mean(provider, OPTIONS)}"
    for name in options:
        if name not in allowed:
            near = did_you_mean(name, allowed) if allowed else "; it takes none"
            return f"'{name}' is not among the options of {provider} that an artifact may carry{near}"
    return ""


def on_gpu(artifact: Artifact) -> bool:
    """Return whether an artifact may be computed by a GPU, whose float32 products may have fewer digits."""
    wanted = artifact.manifest.runtime_options.get("providers", [])
    return artifact.runtime in ("tensorrt", "mlx") or any(name != CPU for name in wanted)

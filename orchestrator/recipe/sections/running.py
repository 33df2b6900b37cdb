"""Where it runs, who watches, and what is left at the end."""

from typing import Literal

from pydantic import Field

from orchestrator.recipe.sections.base import Options, Positive, Section, Text, Texts

Strategy = Literal["none", "ddp", "deepspeed", "fsdp", "auto"]


class Fsdp(Section):
    """FSDP in detail: if this section is there, only what it names is rendered."""

    options: Texts | None = Field(None, description="full_shard, auto_wrap, offload, ... (FSDP 1)")
    version: int | None = Field(None, description="1 or 2")
    wrap: Text | None = Field(None, description="what is wrapped")
    wrap_class: Text | None = Field(None, description="class of the layers")
    min_parameters: int | None = Field(None, description="smallest part that is wrapped")
    offload: bool | None = Field(None, description="hold parameters in host memory")
    offload_pinned: bool | None = Field(None, description="in pinned memory")
    load_on_first: bool | None = Field(None, description="only the first process reads the weights")
    state_dict: Text | None = Field(None, description="how checkpoints are written")
    final_state_dict: Text | None = Field(None, description="how the last one is written")
    reshard: bool | None = Field(None, description="give weights up after the forward pass")
    checkpoint_activations: bool | None = Field(None, description="recompute activations")
    sync_states: bool | None = Field(None, description="send weights from the first process")
    original_parameters: bool | None = Field(None, description="keep the parameters' own shapes")
    mixed_precision: Text | None = Field(None, description="computation type")


class Distributed(Section):
    """How the work is spread over processes."""

    strategy: Strategy = Field(
        "none", description="none, ddp, deepspeed, fsdp, or auto: what the memory plan says"
    )
    zero_stage: Literal[1, 2, 3] = Field(2, description="DeepSpeed ZeRO stage")
    deepspeed_file: Text | None = Field(
        None, description="your own DeepSpeed configuration, instead of zero_stage and offload"
    )
    offload: Literal["none", "optimizer", "all"] = Field(
        "none", description="what is held in host memory (DeepSpeed, FSDP)"
    )
    nvme: Text | None = Field(
        None,
        description="folder on a fast disk of the node for offloaded optimizer states (ZeRO 3)",
    )
    cpu_adam: bool = Field(
        False, description="offloaded states are updated by DeepSpeed's Adam (needs a compiler)"
    )
    gpus: Positive | None = Field(None, description="processes per node; default: every GPU seen")
    nodes: Positive = Field(1, description="number of nodes")
    fsdp: Fsdp | None = Field(None, description="FSDP in detail; default: FSDP 2, full sharding")
    context_parallel: Positive | None = Field(None, description="GPUs that share a sequence")
    ring_attention: Text | None = Field(None, description="how they exchange keys")
    ring_stride: Positive | None = Field(None, description="heads exchanged at once")
    tensor_parallel: Positive | None = Field(None, description="GPUs that share a layer")
    shard: Positive | None = Field(None, description="GPUs that shard the model")
    replicate: Positive | None = Field(None, description="groups of such GPUs")
    expert_parallel: Positive | None = Field(None, description="GPUs that share the experts")
    expert_backend: Text | None = Field(None, description="how tokens reach them")
    compile_deepspeed: bool | None = Field(None, description="DeepSpeed's compiler")
    timeout: Positive | None = Field(
        None, description="seconds until a silent process counts as dead"
    )
    find_unused: bool | None = Field(None, description="look for parameters without gradient")
    bucket_mb: Positive | None = Field(None, description="size of a gradient bucket")
    broadcast_buffers: bool | None = Field(None, description="send buffers to all processes")
    communication: Text | None = Field(None, description="library of communication")
    data_parallel: bool | None = Field(None, description="wrap the model for DDP")
    ray: bool | None = Field(None, description="start through Ray")
    ray_workers: Positive | None = Field(None, description="Ray workers")
    ray_resources: Options | None = Field(None, description="resources of a Ray worker")
    ray_options: Options | None = Field(None, description="further arguments of ray.init")
    master_address: Text | None = Field(None, description="address of the first node")
    master_port: Text | int | None = Field(None, description="its port")


class Tracking(Section):
    """Where metrics are sent besides the run's own record."""

    type: Literal[
        "none", "wandb", "tensorboard", "mlflow", "comet", "trackio", "swanlab", "all"
    ] = Field("none", description="tracker")
    project: Text | None = Field(None, description="wandb project")
    entity: Text | None = Field(None, description="wandb team or user")
    run_name: Text | None = Field(None, description="name shown by the tracker")
    token_counts: bool | Literal["all", "non_padding", "no"] = Field(
        True, description="count the tokens seen (LLaMA-Factory)"
    )
    watch: Text | None = Field(None, description="wandb: what is watched")
    log_model: Text | None = Field(None, description="wandb: upload checkpoints")
    mode: Text | None = Field(None, description="wandb: online, offline or disabled")
    run_id: Text | None = Field(None, description="wandb: id of the run")
    mlflow_uri: Text | None = Field(None, description="MLflow server")
    mlflow_experiment: Text | None = Field(None, description="MLflow experiment")
    mlflow_run: Text | None = Field(None, description="MLflow run")
    comet_project: Text | None = Field(None, description="Comet project")
    comet_workspace: Text | None = Field(None, description="Comet workspace")
    trackio_project: Text | None = Field(None, description="Trackio project")
    trackio_space: Text | None = Field(None, description="Trackio space")
    swanlab: bool | None = Field(None, description="send metrics to SwanLab")
    swanlab_project: Text | None = Field(None, description="SwanLab project")
    swanlab_run: Text | None = Field(None, description="SwanLab run")
    swanlab_workspace: Text | None = Field(None, description="SwanLab workspace")
    swanlab_mode: Text | None = Field(None, description="SwanLab: cloud, local, ...")
    swanlab_description: Text | None = Field(None, description="SwanLab description")
    otel: bool | None = Field(None, description="OpenTelemetry metrics")
    otel_host: Text | None = Field(None, description="their host")
    otel_port: Positive | None = Field(None, description="their port")
    log_folder: Text | None = Field(None, description="folder of TensorBoard logs")


class Output(Section):
    """What is left at the end."""

    directory: Text = Field("runs", description="folder that holds the runs")
    merge: bool = Field(True, description="merge a LoRA into the unquantized base")
    export: bool = Field(True, description="make a clean folder that serves and loads anywhere")
    push_to_hub: Text | None = Field(None, description="hub repository to push the export to")
    private: bool = Field(True, description="the hub repository is private")
    training_directory: Text | None = Field(
        "training",
        description="where files of `ft recipe render` train into; a run trains into its folder",
    )
    overwrite: bool = Field(True, description="train into a folder that has files already")
    plot_loss: bool = Field(False, description="draw the loss at the end (LLaMA-Factory)")
    checkpoints_to_hub: Text | None = Field(
        None, description="hub repository for checkpoints while training"
    )
    hub_push: bool | None = Field(None, description="push checkpoints")
    hub_strategy: Text | None = Field(None, description="what is pushed when")
    hub_revision: Text | None = Field(None, description="branch that is pushed to")
    hub_private: bool | None = Field(None, description="that repository is private")
    resume_from: Text | bool | None = Field(None, description="go on from this checkpoint")
    auto_resume: bool | None = Field(
        None, description="go on from the last checkpoint in the folder"
    )
    weights_only: bool | None = Field(None, description="checkpoints without optimizer state")
    save_first: bool | None = Field(None, description="a checkpoint after the first step")
    save_on_each_node: bool | None = Field(None, description="each node writes its checkpoints")
    safetensors: bool | None = Field(None, description="checkpoints as safetensors")
    template_files: bool | None = Field(None, description="write templates beside the tokenizer")
    shards_to_save: Positive | None = Field(None, description="files of the prepared data")

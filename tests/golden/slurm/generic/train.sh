#!/bin/bash
#SBATCH --job-name=ft-train-mistral-qlora
#SBATCH --output=/runs/r1/logs/slurm-train.log
#SBATCH --open-mode=append
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=8:00:00
#SBATCH --signal=B:USR1@600
#SBATCH --requeue

# shellcheck disable=SC2016  # what is in single quotes is meant as it stands
# The warning before the time limit is for ft, and would end the script before that.
trap '' USR1
stop() { printf "ft: %s\n" "$2" >&2; exit "$1"; }
export FT_HOME=/home/me/ft
exec /ft/.venv/bin/python -I -m orchestrator.cli.main job /runs/r1 train

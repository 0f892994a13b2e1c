#!/usr/bin/env bash
# A run on a Ray cluster inside one Slurm allocation:
#
#     sbatch cluster/slurm.sh fedpart-cifar10 data.root=/shared/data tracking.mlflow_uri=http://HOST:5000
#
# from the checkout, whose .venv (or FEDBENCH_ENV) every node sees. Everything after the script is for `fedbench run`.
# CHANGE ME: the resources, and what your site asks for (--partition, --account).
#SBATCH --job-name=fedbench
#SBATCH --nodes=3
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=1
#SBATCH --mem=64G
#SBATCH --time=04:00:00
#SBATCH --signal=B:INT@300
#SBATCH --output=fedbench-%j.log
set -euo pipefail

export PATH="${FEDBENCH_ENV:-$SLURM_SUBMIT_DIR/.venv}/bin:$PATH"
export RAY_USAGE_STATS_ENABLED=0

# Other jobs may be on the same machines: ports and folders of this one go by its number.
port=$((20000 + SLURM_JOB_ID % 1000 * 10))
folder="${TMPDIR:-/tmp}/ray-$SLURM_JOB_ID"

# A token of its own, in a file that only this user reads, on the file system that all nodes see.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$SLURM_SUBMIT_DIR/.fedbench-token-$SLURM_JOB_ID"
(umask 077 && od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$RAY_AUTH_TOKEN_PATH")

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
on=(srun --nodes=1 --ntasks=1 --overlap)

steps=()
clean_up() {
    kill "${steps[@]}" 2>/dev/null || true
    wait "${steps[@]}" 2>/dev/null || true
    rm -f "$RAY_AUTH_TOKEN_PATH"
    for index in "${!steps[@]}"; do
        "${on[@]}" --nodelist="${nodes[index]}" rm -rf "$folder-$index" || true
    done
}
trap clean_up EXIT

# start INDEX ARGUMENT...: Ray on one node, as long as the job lasts.
start() {
    "${on[@]}" --nodelist="${nodes[$1]}" ray start --block --disable-usage-stats \
        --num-cpus="${SLURM_CPUS_PER_TASK:-1}" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" \
        --temp-dir="$folder-$1" --dashboard-agent-listen-port=$((port + 3 + $1 % 7)) \
        --min-worker-port=0 --max-worker-port=0 \
        "${@:2}" &
    steps+=($!)
}

# An IPv4 address where a node has both kinds.
address=$("${on[@]}" --nodelist="${nodes[0]}" hostname --ip-address | tr ' ' '\n' | grep -m1 -F .)
start 0 --head --node-ip-address="$address" --port="$port" \
    --dashboard-host=127.0.0.1 --dashboard-port=$((port + 1)) --ray-client-server-port=$((port + 2))
for _ in $(seq 60); do
    (: <"/dev/tcp/$address/$port") 2>/dev/null && break
    sleep 1
done
for index in "${!nodes[@]}"; do
    if ((index > 0)); then start "$index" --address="$address:$port"; fi
done

export RAY_ADDRESS="$address:$port"
python - "${#nodes[@]}" <<'PYTHON'
import sys, time
import ray

ray.init(logging_level="ERROR", log_to_driver=False)
wanted, end = int(sys.argv[1]), time.monotonic() + 120
while (alive := sum(node["Alive"] for node in ray.nodes())) < wanted:
    if time.monotonic() > end:
        sys.exit(f"{alive} of {wanted} nodes came up")
    time.sleep(1)
print(f"{alive} nodes, {ray.cluster_resources().get('CPU', 0):g} CPUs, {ray.cluster_resources().get('GPU', 0):g} GPUs")
PYTHON

# In the background, so that this shell hears the signal that comes before the time limit, and passes it on: the run
# stops at the end of its round with a checkpoint, and `fedbench resume` goes on from there.
fedbench run "$@" &
run=$!
trap 'kill -INT "$run" 2>/dev/null || true' INT TERM
status=0
wait "$run" || status=$?
while kill -0 "$run" 2>/dev/null; do # a wait that a signal cut short
    wait "$run" && status=0 || status=$?
done
exit "$status"

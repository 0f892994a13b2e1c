#!/usr/bin/env bash
# A run on a Ray cluster inside one Slurm allocation:
#
#     sbatch cluster/slurm.sh fedpart-cifar10 data.root=/shared/data tracking.mlflow_uri=http://HOST:5000
#
#     sbatch cluster/slurm.sh resume /shared/runs/fedpart-0
#
# from the checkout, whose .venv (or FEDBENCH_ENV) every node sees. What follows the script is for `fedbench`: run (which
# may be left out), resume, suite, sweep.
# CHANGE ME: the resources (or in the command: `sbatch --gpus-per-node=0 cluster/slurm.sh ...`), and what your site asks
# for (--partition, --account).
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
# Ray ends at once: nobody is left whom it would have to wait for, and Slurm waits 30 s by default before it kills.
export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0

case "${1:-}" in
    run | resume | suite | sweep) ;;
    *) set -- run "$@" ;;
esac

# Other jobs may be on the same machines: ports and folders of this one go by its number.
port=$((20000 + SLURM_JOB_ID % 1000 * 10))
folder="${TMPDIR:-/tmp}/ray-$SLURM_JOB_ID"

# A token of its own, in a file that only this user reads, on the file system that all nodes see.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$SLURM_SUBMIT_DIR/.fedbench-token-$SLURM_JOB_ID"
(umask 077 && od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$RAY_AUTH_TOKEN_PATH")

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
# --export: a job submitted with --export=NONE hands that on to its steps, which would have neither PATH nor token.
on=(srun --nodes=1 --ntasks=1 --overlap --export=ALL)

run=
steps=()
# All steps are told to end, and remove what is theirs; those that would not are killed.
clean_up() {
    trap '' INT TERM
    rm -f "$RAY_AUTH_TOKEN_PATH"
    scancel --signal=TERM "$SLURM_JOB_ID" 2>/dev/null || true
    for _ in $(seq 25); do
        [[ $(jobs -pr) ]] || return 0
        sleep 1
    done
    kill "${steps[@]}" 2>/dev/null || true
    wait
}
# The run ends with its round and a checkpoint, from which `resume` goes on; before there is a run, the job ends. SIGTERM,
# because a shell starts what runs in its background deaf to SIGINT.
stop() {
    if [[ $run ]]; then kill -TERM "$run" 2>/dev/null || true; else exit 130; fi
}
trap clean_up EXIT
trap stop INT TERM

# Ray on one node: FOLDER FILE ARGUMENT... It ends with SIGTERM, from above or from Slurm (`scancel`, the time limit; then
# the script has no time left to see to this), and leaves neither the folder nor the file.
ray_step='
folder=$1 file=$2 told=
shift 2
trap told=1 TERM
ray start --block --disable-usage-stats --temp-dir="$folder" "$@" &
ray=$!
wait $ray
status=$?
kill $ray 2>/dev/null
for _ in {1..10}; do kill -0 $ray 2>/dev/null || break; sleep 1; done
kill -9 $ray 2>/dev/null
for _ in {1..5}; do rm -rf "$folder" "$file" && break; sleep 1; done
exit $((told ? 0 : status))'

# start INDEX ARGUMENT...: Ray on one node, as long as the job lasts. With the head goes the token.
start() {
    local file=
    if (($1 == 0)); then file=$RAY_AUTH_TOKEN_PATH; fi
    "${on[@]}" --nodelist="${nodes[$1]}" bash -c "$ray_step" ray "$folder-$1" "$file" \
        --num-cpus="${SLURM_CPUS_PER_TASK:-1}" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" \
        --dashboard-agent-listen-port=$((port + 3 + $1 % 7)) --min-worker-port=0 --max-worker-port=0 \
        "${@:2}" &
    steps+=($!)
}

# The head's first IPv4 address that others can reach: its own name may mean 127.0.1.1 to it, as on Debian.
address=$("${on[@]}" --nodelist="${nodes[0]}" bash -c 'hostname --ip-address; hostname --all-ip-addresses' |
    tr ' ' '\n' | awk '/\./ && !/^127\./ && !found++')
address=${address:-127.0.0.1}
start 0 --head --node-ip-address="$address" --port="$port" \
    --dashboard-host=127.0.0.1 --dashboard-port=$((port + 1)) --ray-client-server-port=$((port + 2))
waited=0
until (: <"/dev/tcp/$address/$port") 2>/dev/null; do
    if ((++waited > 120)) || ! kill -0 "${steps[0]}" 2>/dev/null; then
        echo "no head came up at $address:$port on ${nodes[0]}" >&2
        exit 1
    fi
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

# In the background, so that this shell hears the signal that comes before the time limit.
fedbench "$@" &
run=$!
status=0
wait "$run" || status=$?
while kill -0 "$run" 2>/dev/null; do # a wait that a signal cut short
    wait "$run" && status=0 || status=$?
done
exit "$status"

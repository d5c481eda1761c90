#!/usr/bin/env bash
# The second half of scripts/image.sh, in namespaces of its own: starts the service of an unpacked image and tries it.
set -euo pipefail
root=$1
ip link set lo up
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs -o size=2g,mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o size=1g,mode=0700,uid=10001 tmpfs "$root/data"
mount -t devtmpfs devtmpfs "$root/dev" 2>/dev/null || mount --bind /dev "$root/dev"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm" 2>/dev/null || true

inside() {
  chroot --userspec=10001:10001 --groups= "$root" /usr/bin/env -i PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONPATH=/srv PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 MPLCONFIGDIR=/tmp HOST=0.0.0.0 PORT=8000 \
    LIPSYNC_DATA_DIR=/data LIPSYNC_DEVICE=cpu sh -c "cd /srv && exec $*"
}
say() { printf '%-44s %s\n' "$1" "$2"; }

for tool in pip gcc cc make git curl; do
  [ -z "$(inside "sh -c 'command -v $tool'" || true)" ] || { echo "$tool is in the image" >&2; exit 1; }
done
say "build tools left" none
inside 'sh -c "touch /srv/x /x /opt/venv/x 2>/dev/null"' && { echo "the root can be written to" >&2; exit 1; }
say "read-only root" "as user $(inside id -u)"
inside 'python -c "import socket; socket.create_connection((\"1.1.1.1\", 53), 3)"' 2>/dev/null && exit 1
say "network" none

began=$(date +%s.%N)
inside python -m app 2>"$root/tmp/log" &
service=$!
try() { inside "python -c 'import httpx, sys; sys.exit(httpx.get(\"http://127.0.0.1:8000$1\").status_code != 200)'" 2>/dev/null; }
until try /healthz; do
  kill -0 $service || { cat "$root/tmp/log"; exit 1; }
  sleep 0.3
done
say "/healthz 200 after" "$(echo "$(date +%s.%N) - $began" | bc | cut -c1-4) s"
inside lipsync sample /tmp/talk.mp4 --offset-ms 200 >/dev/null 2>&1
say "made sample, 200 ms late" "$(inside "lipsync analyze /tmp/talk.mp4 --url http://127.0.0.1:8000 --json" 2>/dev/null |
  inside "python -c 'import json, sys; a = json.load(sys.stdin); print(a[\"verdict\"], a[\"fake_probability\"], a[\"sync\"])'")"
say "without a service" "$(inside "lipsync analyze /tmp/talk.mp4 --json" 2>/dev/null |
  inside "python -c 'import json, sys; a = json.load(sys.stdin); print(a[\"verdict\"], a[\"fake_probability\"])'")"
say "bill of materials" "$(inside "python -c 'import json; d = json.load(open(\"/opt/venv/sbom.json\")); print(len(d[\"components\"]), \"components, CycloneDX\", d[\"specVersion\"])'")"
pkill -TERM -P $service
wait $service && code=0 || code=$?
say "exit status after SIGTERM" $code
[ $code = 0 ]
grep -q Traceback "$root/tmp/log" && { cat "$root/tmp/log"; exit 1; }
exit 0

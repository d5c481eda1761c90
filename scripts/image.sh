#!/usr/bin/env bash
# Builds the image from the Dockerfile with buildah, without a container engine, and proves that it works as it is
# meant to run: not root, the root file system read-only, no network, no build tools. Needs root, and Debian's buildah,
# debootstrap and iproute2. Run: make image, or scripts/image.sh [cpu|cuda].
#
# BASE=make     makes a stand-in for the base image from Debian's packages, where its registry can't be reached
# TORCH=...     what pip is told to install PyTorch from, instead of what the variant says
# PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, PIP_CERT (or SSL_CERT_FILE) hold for the build, and leave nothing in the image
# MOUNT=...     a folder that the build sees under the same path, such as one with wheels
set -euo pipefail
cd "$(dirname "$0")/.."

VARIANT=${1:-cpu}
IMAGE=lipsync-detector:$VARIANT
BASE_IMAGE=python:3.11-slim
WORK=$(mktemp -d)
export STORAGE_DRIVER=${STORAGE_DRIVER:-vfs} BUILDAH_ISOLATION=${BUILDAH_ISOLATION:-chroot}
case $VARIANT in
  cpu) TORCH=${TORCH:---index-url https://download.pytorch.org/whl/cpu torch==2.13.0} ;;
  cuda) TORCH=${TORCH:---require-hashes -r /src/requirements-cuda.txt} ;;
  *) echo "cpu or cuda, not $VARIANT" >&2; exit 2 ;;
esac

container="" root=""
clean() {
  [ -z "$root" ] || { umount -R "$root" 2>/dev/null || true; }
  [ -z "$container" ] || { buildah umount "$container" >/dev/null; buildah rm "$container" >/dev/null; }
  rm -rf "$WORK"
}
trap clean EXIT

make_base() {
  debootstrap --variant=minbase bookworm "$WORK/base" >/dev/null
  cp /etc/resolv.conf "$WORK/base/etc/" 2>/dev/null || true
  chroot "$WORK/base" sh -c 'apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes \
    --no-install-recommends python3.11 python3.11-venv ca-certificates >/dev/null 2>&1 && apt-get clean &&
    rm -rf /var/lib/apt/lists/* /usr/share/doc /usr/share/man /usr/share/locale &&
    ln -s /usr/bin/python3.11 /usr/local/bin/python'
  container=$(buildah from scratch)
  buildah add --quiet "$container" "$WORK/base" / >/dev/null
  buildah config --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
  buildah commit --quiet "$container" "docker.io/library/$BASE_IMAGE" >/dev/null
  buildah rm "$container" >/dev/null
  container=""
  rm -rf "$WORK/base"
}

[ "${BASE:-}" != make ] || buildah inspect --type image "docker.io/library/$BASE_IMAGE" >/dev/null 2>&1 || make_base

# What pip is told here holds for the build alone: buildah's --env would write it into the image.
passed=(--volume "$WORK/pip.conf:/etc/pip.conf:ro")
PIP_CERT=${PIP_CERT:-${SSL_CERT_FILE:-}}
[ -z "$PIP_CERT" ] || passed+=(--volume "$PIP_CERT:$PIP_CERT:ro")
echo "[global]" >"$WORK/pip.conf"
for name in PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_CERT; do
  option=${name#PIP_} option=${option//_/-}
  [ -z "${!name:-}" ] || echo "${option,,} = ${!name}" >>"$WORK/pip.conf"
done
[ -z "${MOUNT:-}" ] || passed+=(--volume "$MOUNT:$MOUNT:ro")
buildah build --quiet --layers=false --build-arg "TORCH=$TORCH" "${passed[@]}" --tag "$IMAGE" . >/dev/null
buildah images --format '{{.Name}}:{{.Tag}} {{.Size}}' | grep "lipsync-detector:$VARIANT"
settings=$(buildah inspect --format '{{range .OCIv1.Config.Env}}{{println .}}{{end}}' --type image "localhost/$IMAGE")
if grep -E '^(PIP_|SSL_|HTTPS?_PROXY)' <<<"$settings"; then echo "settings of the build are in the image" >&2; exit 1; fi

container=$(buildah from --pull-never "localhost/$IMAGE")
root=$(buildah mount "$container")
(cd "$root" && for part in opt/venv/lib/python3*/site-packages/* srv/* usr; do du -sm "$part"; done) |
  sort -rn | head -12
unshare --net --mount --pid --ipc --uts --fork --mount-proc scripts/image_inside.sh "$root"

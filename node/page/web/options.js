// Which options of a command take the next word as their value. An image's name comes after
// them, so a wrong guess would take another word for it: what is in no list is refused.

import { refuse } from "./refusal.js";

const list = (text) => new Set(text.trim().split(/\s+/).map((name) => "--" + name));

// engineOptions are those of "run" and "create" of docker, podman and nerdctl. No option
// takes a value in one of them and none in another, so they share the lists.
export const engineOptions = {
  switches: list(`
    debug debug-full detach disable-content-trust env-host experimental http-proxy init insecure-registry interactive
    no-healthcheck no-hostname no-hosts oom-kill-disable passwd privileged publish-all quiet read-only read-only-tmpfs
    replace rm rmi sig-proxy tls-verify tty unsetenv-all use-api-socket`),
  values: list(`
    add-host address annotation arch attach authfile blkio-weight blkio-weight-device bridge-ip cap-add cap-drop cdi-spec-dirs
    cert-dir cgroup-conf cgroup-manager cgroup-parent cgroupns cgroups chrootdirs cidfile cni-netconfpath cni-path
    conmon-pidfile cosign-certificate-identity cosign-certificate-identity-regexp cosign-certificate-oidc-issuer
    cosign-certificate-oidc-issuer-regexp cosign-key cpu-count cpu-percent cpu-period cpu-quota cpu-rt-period
    cpu-rt-runtime cpu-shares cpus cpuset-cpus cpuset-mems creds data-root decryption-key detach-keys device
    device-cgroup-rule device-read-bps device-read-iops device-write-bps device-write-iops dns dns-opt dns-option dns-search
    domainname entrypoint env env-file env-merge expose gidmap gpus group-add group-entry health-cmd health-interval
    health-log-destination health-max-log-count health-max-log-size health-on-failure health-retries
    health-start-interval health-start-period health-startup-cmd health-startup-interval health-startup-retries
    health-startup-success health-startup-timeout health-timeout host host-gateway-ip hostname hosts-dir hosts-file hostuser
    image-volume init-binary init-ctr init-path intel-rdt-closid io-maxbandwidth io-maxiops ip ip6 ipc ipfs-address
    isolation kernel-memory label label-file link link-local-ip log-driver log-opt mac-address memory
    memory-reservation memory-swap memory-swappiness mount name namespace net net-alias network network-alias
    oom-score-adj os passwd-entry personality pid pidfile pids-limit platform pod pod-id-file preserve-fd preserve-fds publish
    pull rdt-class requires restart retry retry-delay runtime sdnotify seccomp-policy secret security-opt shm-size
    shm-size-systemd signature-policy snapshotter stop-signal stop-timeout storage-driver storage-opt subgidname subuidname
    sysctl systemd timeout tmpfs tz uidmap ulimit umask unsetenv user userns userns-remap uts variant verify volume
    volume-driver volumes-from workdir`),
  shortSwitches: "Pdiqt",
  shortValues: "aceHhlmnpuvw",
};

// craneOptions are those of crane. What follows --remote is the image.
export const craneOptions = {
  switches: list("all-tags allow-nondistributable-artifacts annotate-ref fast full-ref insecure no-clobber omit-digest-tags remote verbose"),
  values: list("cache_path format jobs platform tag tarball"),
  shortSwitches: "Oanv",
  shortValues: "cjt",
};

// takesValue reports whether an option, as it is written, takes the next word as its value.
// It refuses an option that is not known, unless its value stands beside it: --name=value.
export function takesValue(word, options) {
  if (word.split("=")[0] === "--rootfs") refuse("rootfs", { at: word });
  if (!word.startsWith("--")) return bunchTakesValue(word, options);
  if (word.includes("=") || options.switches.has(word)) return false;
  if (!options.values.has(word)) refuse("option", { at: word });
  return true;
}

// bunchTakesValue is takesValue for short options, of which several may share a dash: -itp.
// The first that takes a value has what follows it.
function bunchTakesValue(word, options) {
  for (let i = 1; i < word.length; i++) {
    if (word[i + 1] === "=") return false;
    if (options.shortValues.includes(word[i])) return i + 1 === word.length;
    if (!options.shortSwitches.includes(word[i])) refuse("option", { at: word });
  }
  if (word === "-") refuse("option", { at: word });
  return false;
}

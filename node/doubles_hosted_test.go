package node

import "net/http"

// hostedDoubles are registries that are open to everybody.
var hostedDoubles = []double{
	{
		name: "Docker Hub", host: "registry-1.docker.io", called: "docker.io", repo: "library/app-", guests: true, user: "team", absent: http.StatusForbidden,
		manners: []manner{
			tokens{realm: "https://auth.docker.io/token", service: "registry.docker.io", scope: pullScope, answer: `{"token":%[1]q,"access_token":%[1]q,"expires_in":300,"issued_at":"2026-01-02T03:04:05Z"}`}.by(),
			missing("401 with another challenge for what is missing", http.StatusUnauthorized, jsonType, ociError("UNAUTHORIZED"),
				"WWW-Authenticate", `Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/app-none:pull",error="insufficient_scope"`),
			sets("its rate limit beside manifests", manifests, "Ratelimit-Limit", "100;w=21600", "Ratelimit-Remaining", "76;w=21600", "Docker-Ratelimit-Source", "192.0.2.1"),
			storage{status: http.StatusTemporaryRedirect, at: []string{"https://production.cloudflare.docker.com/registry-v2/docker/registry/v2/blobs/sha256", "https://production.cloudfront.docker.com/registry-v2/docker/registry/v2/blobs/sha256"}, kind: "application/octet-stream"}.by(),
		},
	},
	{
		name: "GitHub", host: "ghcr.io", repo: "org/app-", guests: true, user: "octocat", absent: http.StatusForbidden,
		manners: []manner{
			tokens{realm: "https://ghcr.io/token", service: "ghcr.io", scope: pullScope, answer: `{"token":%q}`}.by(),
			missing("403 DENIED for what is missing", http.StatusForbidden, jsonType, ociError("DENIED")),
			storage{status: http.StatusTemporaryRedirect, at: []string{"https://pkg-containers.githubusercontent.com/ghcr1/blobs", "https://pkg-containers.githubusercontent.com/ghcrblobs9/blobs"}, kind: "application/octet-stream", refusal: azureCredentials}.by(),
		},
	},
	{
		name: "GitHub Enterprise", host: "containers.github.example", repo: "org/app-", user: "octocat",
		manners: []manner{
			tokens{realm: "https://containers.github.example/token", service: "containers.github.example", scope: pullScope, answer: `{"token":%q}`}.by(),
			unmarked(),
			refuses("405 to HEAD of manifests", heads, http.StatusMethodNotAllowed, "text/plain; charset=utf-8", "Method Not Allowed\n"),
		},
	},
	{
		name: "Quay", host: "quay.io", repo: "org/app-", guests: true, user: "org+puller", absent: http.StatusForbidden,
		manners: []manner{
			unmarked(),
			atFirst("502 in passing", tags, http.StatusBadGateway, "text/html", "<html><center><h1>502 Bad Gateway</h1></center></html>"),
			tokens{realm: "https://quay.io/v2/auth", service: "quay.io", scope: pullScope, answer: `{"token":%q}`}.by(),
			missing("401 without a challenge for what is missing", http.StatusUnauthorized, jsonType, ociError("UNAUTHORIZED")),
			storage{status: http.StatusFound, page: true, at: []string{"https://cdn01.quay.io/quayio-production-s3/sha256", "https://cdn03.quay.io/quayio-production-s3/sha256"}, kind: "binary/octet-stream", refusal: s3Credentials}.by(),
		},
	},
	{
		name: "Red Hat", host: "registry.redhat.io", repo: "ubi9/app-", user: "7274364|puller",
		manners: []manner{
			tokens{realm: "https://registry.redhat.io/auth/realms/rhcc/protocol/redhat-docker-v2/auth", service: "docker-registry", scope: pullScope, answer: `{"token":%[1]q,"access_token":%[1]q,"expires_in":300,"issued_at":"2026-01-02T03:04:05Z"}`}.by(),
			noDigest("no digest beside manifests", manifests),
			sets("HEAD says text/plain", heads, "Content-Type", "text/plain; charset=utf-8"),
			zips(),
			storage{status: http.StatusFound, at: []string{"https://cdn02.quay.io/quayio-production-s3/sha256", "https://registry-proxy-images.s3.amazonaws.com/sha256"}, kind: "binary/octet-stream", getOnly: true, refusal: s3Credentials}.by(),
		},
	},
	{
		name: "Kubernetes", host: "registry.k8s.io", repo: "app-",
		manners: []manner{
			atFirst("403 by a firewall's page, in passing", tags, http.StatusForbidden, htmlType, "<!doctype html><title>403</title>403 Forbidden", "Docker-Distribution-Api-Version", ""),
			unmarked(),
			sibling(http.StatusTemporaryRedirect, "us-west2-docker.pkg.dev", "k8s-artifacts-prod/images"),
			storage{status: http.StatusTemporaryRedirect, at: []string{"https://prod-registry-k8s-io-us-east-1.s3.dualstack.us-east-1.amazonaws.com/containers/images", "https://prod-registry-k8s-io-eu-west-1.s3.dualstack.eu-west-1.amazonaws.com/containers/images"}, kind: "application/octet-stream", refusal: s3Credentials}.by(),
		},
	},
	{
		name: "Microsoft", host: "mcr.microsoft.com", repo: "dotnet/app-",
		manners: []manner{
			storage{status: http.StatusTemporaryRedirect, at: []string{"https://centralus.data.mcr.microsoft.com/01031d61/docker/registry/v2/blobs/sha256", "https://westeurope.data.mcr.microsoft.com/01031d61/docker/registry/v2/blobs/sha256"}, kind: "application/octet-stream", refusal: azureCredentials}.by(),
		},
	},
	{
		name: "NVIDIA", host: "nvcr.io", repo: "nvidia/app-", guests: true, user: "$oauthtoken", absent: http.StatusForbidden,
		manners: []manner{
			tokens{realm: "https://nvcr.io/proxy_auth", scope: pullScope + ",push", answer: `{"token":%q,"expires_in":600}`, page: true, lateRealm: "https://authn.nvidia.com/token"}.by(),
			missing("401 with a page and another challenge for what is missing", http.StatusUnauthorized, "text/html", "<html><head><title>401 Authorization Required</title></head></html>",
				"WWW-Authenticate", `Bearer realm="https://nvcr.io/proxy_auth",scope="repository:nvidia/app-none:pull,push"`),
			storage{status: http.StatusTemporaryRedirect, at: []string{"https://layers.nvcr.io/sha256", "https://xfiles.ngc.nvidia.com/registry/sha256"}, kind: "binary/octet-stream", getOnly: true, refusal: s3Credentials}.by(),
		},
	},
	{
		name: "Amazon's public gallery", host: "public.ecr.aws", repo: "docker/library/app-", guests: true,
		manners: []manner{
			atFirst("429 in passing", tags, http.StatusTooManyRequests, jsonType, `{"errors":[{"code":"TOOMANYREQUESTS","message":"Rate exceeded"}]}`),
			tokens{realm: "https://public.ecr.aws/token/", service: "public.ecr.aws", scope: "aws", answer: `{"token":%q}`}.by(),
			noDigest("no digest beside manifests", manifests),
			storage{status: http.StatusTemporaryRedirect, at: []string{"https://d2glxqk2uabbnd.cloudfront.net/us-east-1", "https://d5l0dvt14r5h8.cloudfront.net/us-east-1"}, kind: "application/octet-stream"}.by(),
		},
	},
}

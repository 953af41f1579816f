package node

import "net/http"

// ownDoubles are registries that people run themselves.
var ownDoubles = []double{
	{
		name: "GitLab", host: "registry.gitlab.com", repo: "group/project/app-", guests: true, user: "deploy-token",
		manners: []manner{
			tokens{realm: "https://gitlab.com/jwt/auth", service: "container_registry", scope: pullScope, answer: `{"token":%q}`}.by(),
			missing("404 for what is missing", http.StatusNotFound, jsonType, ociError("NAME_UNKNOWN")),
			storage{status: http.StatusTemporaryRedirect, at: []string{"https://cdn.registry.gitlab-static.net/gitlab/docker/registry/v2/blobs/sha256", "https://storage.googleapis.com/gitlab-registry/docker/registry/v2/blobs/sha256"}, kind: "application/octet-stream"}.by(),
		},
	},
	{
		name: "GitLab on two domains", host: "registry.images.example", repo: "group/app-", user: "gitlab+deploy-token-1", absent: http.StatusForbidden,
		config: "realm_hosts: [git.code.example]",
		manners: []manner{
			tokens{realm: "https://git.code.example/jwt/auth", service: "container_registry", scope: pullScope, answer: `{"token":%q}`}.by(),
			atFirst("403 with nothing in it by an address filter, in passing", tags, http.StatusForbidden, "", "", "Docker-Distribution-Api-Version", ""),
			missing("403 DENIED for what is missing", http.StatusForbidden, jsonType, ociError("DENIED")),
		},
	},
	{
		name: "Harbor", host: "harbor.team.example", repo: "project/app-", user: "robot$project+puller", absent: http.StatusForbidden,
		manners: []manner{
			tokens{realm: "http://harbor.team.example/service/token", server: "https://harbor.team.example/service/token", service: "harbor-registry", scope: pullScope, answer: `{"token":%[1]q,"access_token":"","expires_in":1800,"issued_at":"2026-01-02T03:04:05Z"}`}.by(),
			missing("401 for what is missing", http.StatusUnauthorized, jsonType, ociError("UNAUTHORIZED")),
			refuses("404 to HEAD of blobs", func(r *http.Request) bool { return r.Method == http.MethodHead && blobs(r) }, http.StatusNotFound, jsonType, ""),
			storage{status: http.StatusTemporaryRedirect, at: []string{"https://minio.team.example/harbor/docker/registry/v2/blobs/sha256", "https://minio-2.team.example/harbor/docker/registry/v2/blobs/sha256"}, kind: "application/octet-stream", getOnly: true, refusal: s3Credentials}.by(),
		},
	},
	{
		name: "Artifactory", host: "artifactory.team.example", path: "/artifactory/api/docker/docker-remote", repo: "team/app-", user: "puller",
		manners: []manner{
			tokens{realm: "https://artifactory.team.example:443/artifactory/api/docker/docker-remote/v2/token", service: "artifactory.team.example:443", scope: pullScope, answer: `{"token":%q,"expires_in":3600}`, greets: true}.by(),
			sets("cookies, which it gets back from nobody", func(*http.Request) bool { return true }, "Set-Cookie", "AWSELB=0123;PATH=/;MAX-AGE=600"),
			storage{status: http.StatusFound, at: []string{"https://jfrog-prod-euw1.s3.amazonaws.com/aol-team/filestore", "https://artifactory-cdn.team.example/filestore"}, kind: "application/octet-stream", getOnly: true, refusal: s3Credentials}.by(),
		},
	},
	{
		name: "Nexus", host: "nexus.team.example", path: "/repository/docker-group", repo: "team/app-", user: "puller",
		manners: []manner{
			basicLogin(`BASIC realm="Sonatype Nexus Repository Manager"`, http.StatusUnauthorized, "BASIC, in capitals"),
			refuses("404 with a page to HEAD of manifests", heads, http.StatusNotFound, "text/html", "<html><body>404</body></html>"),
		},
	},
	{
		name: "Nexus behind a gateway", host: "images.team.example", path: "/docker", repo: "team/app-", user: "puller",
		manners: []manner{
			tokens{realm: "https://images.team.example/v2/token", server: "https://images.team.example/docker/v2/token", service: "https://images.team.example/v2/token", answer: `{"token":%q,"expires_in":60}`}.by(),
			storage{status: http.StatusFound, at: []string{"/blobstore", "https://images.team.example/blobstore-2"}, kind: "application/octet-stream"}.by(),
		},
	},
	{
		name: "Gitea", host: "gitea.team.example", repo: "team/app-", guests: true, user: "puller",
		manners: []manner{
			tokens{realm: "https://gitea.team.example/v2/token", service: "container_registry", scope: "*", answer: `{"token":%q}`, also: `Basic realm="https://gitea.team.example/v2",service="container_registry",scope="*"`}.by(),
			rangeless(),
		},
	},
	{
		name: "a plain registry", host: "registry.old.example", repo: "team/app-", absent: http.StatusBadGateway,
		manners: []manner{
			atFirst("429 until a date that has passed", tags, http.StatusTooManyRequests, jsonType, ociError("TOOMANYREQUESTS"), "Retry-After", "Thu, 01 Jan 2026 00:00:00 GMT"),
			sets("layers called x-gzip though they are sent as they are", blobs, "Content-Encoding", "x-gzip"),
			missing("404 with a page for what is missing, which could be anybody's: 502", http.StatusNotFound, "text/html", "<html>404</html>"),
		},
	},
}

package node

import (
	"net/http"
	"strings"
)

// cloudDoubles are registries that clouds run for their customers.
var cloudDoubles = []double{
	{
		name: "Google", host: "europe-west1-docker.pkg.dev", repo: "project/store/app-", user: "_json_key", absent: http.StatusForbidden,
		manners: []manner{
			sets("headers of 100 KiB", func(*http.Request) bool { return true }, "X-Large", strings.Repeat("x", 100<<10)),
			tokens{realm: "https://europe-west1-docker.pkg.dev/v2/token", service: "europe-west1-docker.pkg.dev", scope: pullScope, answer: `{"token":%q,"expires_in":3599}`}.by(),
			missing("403 DENIED for what is missing", http.StatusForbidden, jsonType, ociError("DENIED")),
			storage{status: http.StatusFound, at: []string{"/artifacts-downloads/namespaces/project/repositories/store/downloads", "https://storage.googleapis.com/artifacts-project/containers/images"}, kind: "application/octet-stream"}.by(),
		},
	},
	{
		name: "Google, for an hour", host: "gcr.io", repo: "project/app-", user: "oauth2accesstoken", rotating: true,
		manners: []manner{
			tokens{realm: "https://gcr.io/v2/token", service: "gcr.io", scope: pullScope, answer: `{"token":%q,"expires_in":3600}`}.by(),
		},
	},
	{
		name: "Amazon", host: "123456789012.dkr.ecr.eu-central-1.amazonaws.com", repo: "team/app-", user: "AWS", rotating: true,
		manners: []manner{
			basicLogin(`Basic realm="%s",service="ecr.amazonaws.com"`, http.StatusForbidden, "Basic with a password of 12 hours, 403 after that"),
			missing("404 as JSON for what is missing", http.StatusNotFound, jsonType, ociError("NAME_UNKNOWN")),
			noDigest("no digest beside HEAD", heads),
			storage{status: http.StatusTemporaryRedirect, at: []string{"https://prod-eu-central-1-starport-layer-bucket.s3.eu-central-1.amazonaws.com/a1", "https://prod-eu-central-1-starport-layer-bucket.s3.eu-central-1.amazonaws.com/b2"}, kind: "application/octet-stream", getOnly: true, refusal: s3Credentials}.by(),
		},
	},
	{
		name: "Azure", host: "team.azurecr.io", repo: "app-", user: "00000000-0000-0000-0000-000000000000",
		manners: []manner{
			tokens{realm: "https://team.azurecr.io/oauth2/token", service: "team.azurecr.io", scope: pullScope, answer: `{"access_token":%q}`}.by(),
			storage{status: http.StatusTemporaryRedirect, at: []string{"https://weurmanaged13.blob.core.windows.net/7c5a/docker/registry/v2/blobs/sha256", "https://team.westeurope.data.azurecr.io/7c5a/docker/registry/v2/blobs/sha256"}, kind: "application/octet-stream", refusal: azureCredentials}.by(),
		},
	},
	{
		name: "Cloudflare's serverless registry", host: "registry.team.workers.dev", repo: "app-", user: "puller",
		manners: []manner{
			unmarked(),
			basicLogin(`Basic realm="%s"`, http.StatusUnauthorized, "Basic, whose realm is the URL asked for"),
			rangeless(),
			sets("blobs without a type", blobs, "Content-Type", ""),
		},
	},
	{
		name: "Alibaba", host: "registry.cn-hangzhou.aliyuncs.com", repo: "team/app-", guests: true, user: "puller@team", absent: http.StatusForbidden,
		manners: []manner{
			tokens{realm: "https://dockerauth.cn-hangzhou.aliyuncs.com/auth", service: "registry.aliyuncs.com:cn-hangzhou:26842", scope: pullScope, answer: `{"access_token":%[1]q,"token":%[1]q}`}.by(),
			missing("401 with another challenge for what is missing", http.StatusUnauthorized, jsonType, ociError("UNAUTHORIZED"),
				"WWW-Authenticate", `Bearer realm="https://dockerauth.cn-hangzhou.aliyuncs.com/auth",service="registry.aliyuncs.com:cn-hangzhou:26842",scope="repository:team/app-none:pull",error="insufficient_scope"`),
			storage{status: http.StatusTemporaryRedirect, at: []string{"https://aliregistry.oss-cn-hangzhou.aliyuncs.com/docker/registry/v2/blobs/sha256", "https://aliregistry-2.oss-cn-hangzhou.aliyuncs.com/docker/registry/v2/blobs/sha256"}, kind: "application/octet-stream", getOnly: true, refusal: s3Credentials}.by(),
		},
	},
	{
		name: "Huawei", host: "swr.cn-north-4.myhuaweicloud.com", repo: "org/app-", guests: true, user: "cn-north-4@AKEXAMPLE",
		manners: []manner{
			tokens{realm: "https://swr.cn-north-4.myhuaweicloud.com/swr/auth/v2/registry/auth/", service: "dockyard", scope: "repository:%s:", answer: `{"token":%q,"expires_in":900}`}.by(),
			storage{status: http.StatusTemporaryRedirect, at: []string{"https://dockyard-cn-north-4.obs.cn-north-4.myhuaweicloud.com/docker/registry/v2/blobs/sha256", "https://dockyard-2.obs.cn-north-4.myhuaweicloud.com/docker/registry/v2/blobs/sha256"}, kind: "binary/octet-stream", getOnly: true, refusal: s3Credentials}.by(),
		},
	},
	{
		name: "Tencent", host: "ccr.ccs.tencentyun.com", repo: "team/app-", guests: true, user: "100012345678",
		manners: []manner{
			tokens{realm: "https://ccr.ccs.tencentyun.com/service/token", service: "token-service", answer: `{"token":%q,"expires_in":7200}`}.by(),
			missing("404 NAME_UNKNOWN for what is missing", http.StatusNotFound, jsonType, ociError("NAME_UNKNOWN")),
			storage{status: http.StatusTemporaryRedirect, at: []string{"https://ccr-1251707795.cos.ap-guangzhou.myqcloud.com/docker/registry/v2/blobs/sha256", "https://ccr-1251707795.cos.accelerate.myqcloud.com/docker/registry/v2/blobs/sha256"}, kind: "application/octet-stream", getOnly: true, refusal: s3Credentials}.by(),
		},
	},
}

package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/opencontainers/go-digest"
)

// A Bucket names an S3-compatible bucket, and how it is reached.
type Bucket struct {
	Endpoint             *url.URL // http or https, a host and no path
	Name                 string
	Prefix               string // of all keys, without slashes at its ends; may be ""
	Region               string
	AccessKey, SecretKey string // both empty: requests are not signed
}

// errMissing: the bucket does not have the object, or has nothing at the offset asked for.
var errMissing = errors.New("the bucket does not have it")

// A bucket makes requests to a Bucket. No other file knows the library.
type bucket struct {
	Bucket
	core      minio.Core
	transport *http.Transport
}

// openBucket makes no request yet. Close the bucket.
func openBucket(b Bucket) (*bucket, error) {
	t := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 3 * time.Second}).DialContext,
		TLSHandshakeTimeout:   3 * time.Second,
		MaxIdleConnsPerHost:   16,
		MaxConnsPerHost:       64,
		IdleConnTimeout:       time.Minute,
		ExpectContinueTimeout: time.Second,
		DisableCompression:    true, // an object is exactly its bytes
	}
	creds := credentials.NewStaticV4(b.AccessKey, b.SecretKey, "")
	core, err := minio.NewCore(b.Endpoint.Host, &minio.Options{
		Creds: creds, Secure: b.Endpoint.Scheme == "https", Transport: t, Region: b.Region, MaxRetries: 1,
	})
	if err != nil {
		return nil, fmt.Errorf("setting up the archive at %s: %w", b.Endpoint.Host, err)
	}
	return &bucket{b, *core, t}, nil
}

// close lets go of idle connections.
func (b *bucket) close() { b.transport.CloseIdleConnections() }

// key is the key of an object. What a private registry has is kept apart, for its name
// alone: whoever names another registry must not get it.
func (b *bucket) key(private bool, registry string, d digest.Digest) string {
	hex := d.Encoded()
	parts := []string{b.Prefix, "blobs", d.Algorithm().String(), hex[:2], hex}
	if private {
		// No host has a tilde in its name, so no two registries share a folder.
		parts = append([]string{b.Prefix, "private", strings.ReplaceAll(registry, ":", "~")}, parts[1:]...)
	}
	return path.Join(parts...)
}

// An object is one on its way.
type object struct {
	io.ReadCloser
	offset    int64 // where it begins: as asked for, or 0
	size      int64 // of the whole, -1 if that is not told
	mediaType string
}

// get opens an object from an offset on. ctx bounds all of it.
func (b *bucket) get(ctx context.Context, key string, offset int64) (*object, error) {
	var opts minio.GetObjectOptions
	if offset > 0 {
		opts.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	body, info, header, err := b.core.GetObject(ctx, b.Name, key, opts)
	if err != nil {
		return nil, explained(ctx, err)
	}
	o := &object{ReadCloser: body, size: info.Size, mediaType: info.ContentType}
	if span := header.Get("Content-Range"); span != "" {
		o.offset, o.size = offset, total(span)
		if !strings.HasPrefix(span, fmt.Sprintf("bytes %d-", offset)) {
			return nil, errors.Join(errors.New("the bucket sent another range than the one asked for"), body.Close())
		}
	}
	return o, nil
}

// total is the size of the whole in a Content-Range (RFC 9110 section 14.4), -1 if it does
// not tell.
func total(span string) int64 {
	_, size, _ := strings.Cut(span, "/")
	n, err := strconv.ParseInt(size, 10, 64)
	if err != nil || n < 0 {
		return -1
	}
	return n
}

// has reports whether the bucket has an object.
func (b *bucket) has(ctx context.Context, key string) (bool, error) {
	_, err := b.core.StatObject(ctx, b.Name, key, minio.StatObjectOptions{})
	if err = explained(ctx, err); errors.Is(err, errMissing) {
		return false, nil
	}
	return err == nil, err
}

// inParts is the size from which on an object is put in parts. A broken connection then costs
// a part, and an S3 server need not take more than 5 GiB at once.
const inParts = 64 << 20

// partSize is the size of the parts, in bytes. One is in memory for each upload; at most
// 10,000 make up an object.
const partSize = 16 << 20

// put puts an object. A server takes no other bytes under a SHA-256 digest than those.
func (b *bucket) put(ctx context.Context, key string, d digest.Digest, r io.Reader, size int64, mediaType string) error {
	opts := minio.PutObjectOptions{ContentType: mediaType, PartSize: partSize, NumThreads: 1}
	if size >= inParts {
		_, err := b.core.Client.PutObject(ctx, b.Name, key, r, size, opts)
		return explained(ctx, err)
	}
	sum := ""
	if d.Algorithm() == digest.SHA256 {
		sum, opts.DisableContentSha256 = d.Encoded(), true // it is signed in place of the chunks' sums
	}
	_, err := b.core.PutObject(ctx, b.Name, key, r, size, "", sum, opts)
	return explained(ctx, err)
}

// explained is an error of a request, for people. What ended the request says more than what
// that led to. A key that may be looked at but not listed is told as forbidden where there
// is none, so that counts as missing.
func explained(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	said := minio.ToErrorResponse(err)
	switch {
	case said.Code == minio.NoSuchKey, said.Code == "InvalidRange", said.StatusCode == http.StatusRequestedRangeNotSatisfiable:
		return errMissing
	case said.Code == minio.AccessDenied:
		return fmt.Errorf("%w, or refuses it: %s", errMissing, said.Code)
	case said.Code != "":
		return fmt.Errorf("it answered %d %s: %s", said.StatusCode, said.Code, said.Message)
	}
	if bad, ok := errors.AsType[*url.Error](err); ok {
		return bad.Err // without the address of the object
	}
	return err
}

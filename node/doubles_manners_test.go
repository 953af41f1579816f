package node

import (
	"compress/gzip"
	"maps"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
)

const (
	htmlType = "text/html; charset=utf-8"
	jsonType = "application/json"
)

// say answers with a whole body.
func say(w http.ResponseWriter, status int, mediaType, body string) {
	if mediaType == "" {
		w.Header()["Content-Type"] = nil // and net/http adds none
	} else {
		w.Header().Set("Content-Type", mediaType)
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write([]byte(body)) // to a HEAD nothing is sent
}

// ociError is the body of an error as the standard says it.
func ociError(code string) string {
	return `{"errors":[{"code":"` + code + `","message":"the double refuses","detail":null}]}`
}

// A rewriter changes the header of an answer before it is sent.
type rewriter struct {
	http.ResponseWriter
	change func(status int, h http.Header)
	done   bool
}

// WriteHeader implements http.ResponseWriter.
func (w *rewriter) WriteHeader(status int) {
	if !w.done {
		w.done = true
		w.change(status, w.Header())
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements io.Writer.
func (w *rewriter) Write(p []byte) (int, error) {
	if !w.done {
		w.WriteHeader(http.StatusOK)
	}
	return w.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (w *rewriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// A when chooses requests.
type when func(*http.Request) bool

func manifests(r *http.Request) bool { return strings.Contains(r.URL.Path, "/manifests/") }
func blobs(r *http.Request) bool     { return strings.Contains(r.URL.Path, "/blobs/") }
func heads(r *http.Request) bool     { return r.Method == http.MethodHead && manifests(r) }
func tags(r *http.Request) bool      { return manifests(r) && !strings.Contains(r.URL.Path, "sha256:") }

// refuses answers chosen requests with an error.
func refuses(says string, of when, status int, mediaType, body string, header ...string) manner {
	return manner{says, func(_ *stage, note func(), next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !of(r) {
				next.ServeHTTP(w, r)
				return
			}
			note()
			for i := 0; i < len(header); i += 2 {
				w.Header().Add(header[i], header[i+1])
			}
			say(w, status, mediaType, body)
		})
	}}
}

// atFirst answers the first of the chosen requests in each age with an error.
func atFirst(says string, of when, status int, mediaType, body string, header ...string) manner {
	return manner{says, func(s *stage, note func(), next http.Handler) http.Handler {
		last := -1
		once := func(r *http.Request) bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			if !of(r) || last == s.age {
				return false
			}
			last = s.age
			return true
		}
		return refuses(says, once, status, mediaType, body, header...).plays(s, note, next)
	}}
}

// missing answers with an error where there is no such image.
func missing(says string, status int, mediaType, body string, header ...string) manner {
	return manner{says, func(s *stage, note func(), next http.Handler) http.Handler {
		absent := func(r *http.Request) bool { return strings.Contains(r.URL.Path, "/"+s.repo+"none/") }
		return refuses(says, absent, status, mediaType, body, header...).plays(s, note, next)
	}}
}

// sets sets headers of the answers to chosen requests; "" takes one away.
func sets(says string, of when, header ...string) manner {
	return manner{says, func(_ *stage, note func(), next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !of(r) {
				next.ServeHTTP(w, r)
				return
			}
			note()
			next.ServeHTTP(&rewriter{ResponseWriter: w, change: func(_ int, h http.Header) {
				for i := 0; i < len(header); i += 2 {
					if h[header[i]] = []string{header[i+1]}; header[i+1] == "" {
						h[header[i]] = nil // net/http adds nothing of its own either
					}
				}
			}}, r)
		})
	}}
}

// unmarked is a registry whose answers lack the API's header.
func unmarked() manner {
	return sets("no header of the API", func(*http.Request) bool { return true }, "Docker-Distribution-Api-Version", "")
}

// noDigest is a registry that does not tell the digest.
func noDigest(says string, of when) manner {
	return sets(says, of, "Docker-Content-Digest", "", "Etag", "")
}

// rangeless is a registry that sends the whole blob whatever is asked for.
func rangeless() manner {
	return manner{"ranges are ignored", func(_ *stage, note func(), next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Range") != "" {
				note()
				r = r.Clone(r.Context())
				r.Header.Del("Range")
			}
			next.ServeHTTP(w, r)
		})
	}}
}

// zips is a registry that compresses documents if it may.
func zips() manner {
	return manner{"manifests and configs are compressed unless identity is asked for", func(_ *stage, note func(), next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			note()
			if accepts := r.Header.Get("Accept-Encoding"); r.Method == http.MethodHead || accepts == "identity" {
				next.ServeHTTP(w, r)
				return
			}
			rec := httptest.NewRecorder()
			next.ServeHTTP(rec, r)
			maps.Copy(w.Header(), rec.Header())
			w.Header().Del("Content-Length")
			w.Header().Set("Content-Encoding", "gzip")
			w.WriteHeader(rec.Code)
			zw := gzip.NewWriter(w)
			_, _ = zw.Write(rec.Body.Bytes())
			_ = zw.Close()
		})
	}}
}

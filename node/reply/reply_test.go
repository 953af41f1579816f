package reply_test

import (
	"encoding/json"
	"math"
	"net/http/httptest"
	"strconv"
	"testing"

	"oci-proxy/node/reply"
)

func TestFailIsOneErrorThatNothingKeeps(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	reply.Fail(w, 429, reply.Error{Code: "TOOMANYREQUESTS", Message: "later", Detail: &reply.Detail{Registry: "r.example.com", RetryAfter: 1.5}})
	want := `{"errors":[{"code":"TOOMANYREQUESTS","message":"later","detail":{"registry":"r.example.com","retry_after":1.5}}]}`
	h := w.Header()
	if w.Code != 429 || w.Body.String() != want || h.Get("Content-Type") != "application/json" ||
		h.Get("Cache-Control") != "no-store" || h.Get("Content-Length") != strconv.Itoa(len(want)) {
		t.Errorf("status %d, %v\n%s", w.Code, h, w.Body)
	}
}

func TestWhatDoesNotEncodeIsStillJSON(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]func(*httptest.ResponseRecorder){
		"error": func(w *httptest.ResponseRecorder) {
			reply.Fail(w, 502, reply.Error{Detail: &reply.Detail{RetryAfter: math.NaN()}})
		},
		"report": func(w *httptest.ResponseRecorder) { reply.JSON(w, math.Inf(1)) },
	} {
		w := httptest.NewRecorder()
		answer(w)
		if !json.Valid(w.Body.Bytes()) || w.Body.Len() == 0 {
			t.Errorf("%s: %q", name, w.Body)
		}
	}
}

func TestReportIsNotKept(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	reply.JSON(w, map[string]int{"nodes": 3})
	h := w.Header()
	if got := w.Body.String(); got != "{\n  \"nodes\": 3\n}" || h.Get("Cache-Control") != "no-store" || h.Get("Content-Type") != "application/json" {
		t.Errorf("%v\n%s", h, got)
	}
}

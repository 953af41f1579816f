package figures

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
)

// at is a time within that minute.
func at(minute int64) time.Time { return time.Unix(60*minute+30, 0) }

func TestAnHourForgetsWhatIsOlder(t *testing.T) {
	t.Parallel()
	h := HourAt(at(1000))
	for minute := int64(1000); minute < 1000+3*Minutes; minute++ {
		h.At(at(minute))[Requests] = minute
	}
	if last := int64(999 + 3*Minutes); h.End != last || h.Minutes[Minutes-1][Requests] != last || h.Minutes[0][Requests] != last-Minutes+1 {
		t.Errorf("it ends with %d, %d requests; the first has %d", h.End, h.Minutes[Minutes-1][Requests], h.Minutes[0][Requests])
	}
	if h.At(at(h.End-Minutes)) != nil || h.At(at(h.End-Minutes+1)) != &h.Minutes[0] {
		t.Error("the hour begins elsewhere")
	}
	end := h.End
	for _, ahead := range []int64{7, Minutes, 1 << 40} { // a clock may jump
		h.At(at(h.End))[HitSent] = 5
		h.At(at(h.End + ahead))
		kept := int64(5)
		if ahead >= Minutes {
			kept = 0
		}
		if sum := h.Sum(); h.End != end+ahead || sum[HitSent] != kept {
			t.Errorf("after %d minutes: %d bytes, the end is %d", ahead, sum[HitSent], h.End)
		}
		end = h.End
		*h = Hour{End: end}
	}
}

func TestHoursOfNodesAreAddedMinuteByMinute(t *testing.T) {
	t.Parallel()
	a, b, strange := HourAt(at(500)), HourAt(at(498)), HourAt(at(9000))
	a.At(at(498))[MissSent] = 1
	b.At(at(498))[MissSent] = 10
	b.At(at(498 - Minutes + 1))[MissSent] = 100 // older than a's hour
	strange.At(at(9000))[MissSent] = 1000       // a clock that is wrong by days
	a.Add(b)
	a.Add(strange)
	if sum := a.Sum(); a.Minutes[Minutes-3][MissSent] != 11 || sum[MissSent] != 11 {
		t.Errorf("%d bytes in that minute, %d in all", a.Minutes[Minutes-3][MissSent], sum[MissSent])
	}
}

func TestTimesToTheFirstByte(t *testing.T) {
	t.Parallel()
	var m Minute
	if _, told := m.First(.5); told {
		t.Error("nothing was answered, and a time is told")
	}
	for range 90 {
		m.Answered(15 * time.Millisecond)
	}
	for range 10 {
		m.Answered(3 * time.Second)
	}
	for _, q := range []struct {
		part      float64
		low, high time.Duration
	}{{.5, 10 * time.Millisecond, 20 * time.Millisecond}, {.95, 2 * time.Second, 5 * time.Second}, {1, 2 * time.Second, 5 * time.Second}} {
		if got, told := m.First(q.part); !told || got < q.low || got > q.high {
			t.Errorf("of %g: %v, want %v to %v", q.part, got, q.low, q.high)
		}
	}
	var slow Minute
	slow.Answered(time.Hour)
	if got, _ := slow.First(.5); got != 30*time.Second || slow[Requests] != 1 {
		t.Errorf("beyond the bounds: %v", got)
	}
}

func TestAnHourSurvivesTelling(t *testing.T) {
	t.Parallel()
	h := HourAt(at(700))
	h.At(at(650)).Answered(time.Minute)
	h.At(at(699))[PeerHitSent] = 1 << 40
	raw, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	var got Hour
	if err := json.Unmarshal(raw, &got); err != nil || got != *h {
		t.Errorf("%v after %s", err, raw)
	}
	empty, err := json.Marshal(HourAt(at(700)))
	if err != nil || string(empty) != `{"end":700,"minutes":[]}` {
		t.Errorf("an empty hour is %s, %v", empty, err)
	}
}

// Another node may say anything.
func TestHoursOutOfBoundsAreRefused(t *testing.T) {
	t.Parallel()
	many := `{"end":1,"minutes":[` + strings.Repeat("[],", Minutes) + `[]]}`
	for _, raw := range []string{many, `{"end":-1}`, `{"end":1,"minutes":[[-5]]}`, `{"end":1,"minutes":[[70368744177665]]}`} {
		if _, err := Parse([]byte(`{"hour":` + raw + `}`)); !errors.Is(err, errBounds) {
			t.Errorf("%.60s: %v", raw, err)
		}
	}
	later := `{"hour":{"end":7,"minutes":[[1` + strings.Repeat(",2", 90) + `]]}}` // with more columns
	if n, err := Parse([]byte(later)); err != nil || n.Hour.Minutes[Minutes-1][Requests] != 1 {
		t.Errorf("a later version's: %v", err)
	}
}

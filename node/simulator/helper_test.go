package simulator

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"

	"go.uber.org/goleak"

	"oci-proxy/transfer/testkit"
)

// memberlist's last probes end by themselves; each bubble fails if they don't.
func TestMain(m *testing.M) {
	testkit.Main(m, goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.(*Memberlist).probeNode"))
}

// gossiping is up to how many nodes gossip is real. The oracle stands for it beyond.
const gossiping = 30

// sizes are how many nodes are simulated: those that SIM_NODES lists, else few.
func sizes(t *testing.T, few ...int) (all []int) {
	t.Helper()
	listed := os.Getenv("SIM_NODES")
	if listed == "" {
		return few
	}
	for s := range strings.SplitSeq(listed, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(s))
		if err != nil || n < 2 {
			t.Fatalf("SIM_NODES=%q: it lists numbers of nodes, such as 10,100", listed)
		}
		all = append(all, n)
	}
	return all
}

// whole reports whether the tables are wanted, and not just the gate's short form.
func whole() bool { return os.Getenv("SIM_NODES") != "" }

// seed is what the simulations are made of: SIM_SEED, else 1.
func seed(t *testing.T) uint64 {
	t.Helper()
	text := os.Getenv("SIM_SEED")
	if text == "" {
		return 1
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("SIM_SEED=%q: %v", text, err)
	}
	return n
}

// A table is printed when the test ends, and each row of a whole one as soon as it is made.
type table struct {
	t    *testing.T
	text strings.Builder
	w    *tabwriter.Writer
}

func newTable(t *testing.T, head ...any) *table {
	t.Helper()
	b := &table{t: t}
	b.w = tabwriter.NewWriter(&b.text, 0, 0, 2, ' ', 0)
	b.row(head...)
	t.Cleanup(func() {
		_ = b.w.Flush() // into memory
		t.Logf("seed %d\n%s", seed(t), b.text.String())
	})
	return b
}

func (b *table) row(cells ...any) {
	var row strings.Builder
	for _, c := range cells {
		if f, ok := c.(float64); ok {
			c = fmt.Sprintf("%.3f", f)
		}
		_, _ = fmt.Fprint(&row, c, "\t") // into memory
	}
	_, _ = fmt.Fprintln(b.w, row.String())
	if whole() {
		b.t.Logf("seed %d: %s", seed(b.t), strings.ReplaceAll(row.String(), "\t", " | "))
	}
}

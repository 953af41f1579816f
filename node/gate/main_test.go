package gate

import (
	"testing"

	"oci-proxy/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

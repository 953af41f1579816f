package live

import (
	"testing"

	"oci-proxy/transfer/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

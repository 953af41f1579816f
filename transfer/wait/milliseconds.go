package wait

import "time"

// Milliseconds returns d as logs have it: in milliseconds, to the microsecond. Keys of such
// values end in _ms.
func Milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

package transfer

// VouchKey is for tests that make a voucher old.
func VouchKey(ref Ref) string { return vouchKey(ref) }

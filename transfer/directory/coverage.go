package directory

// A coverage says which partitions the sessions of which members cover: a bit for each member's
// number. It has no lock; the Directory guards it.
type coverage map[uint16][]uint64

// add notes that the member's session covers the partition.
func (c coverage) add(partition, member uint16) {
	row := c[partition]
	for len(row) <= int(member/64) {
		row = append(row, 0)
	}
	row[member/64] |= 1 << (member % 64)
	c[partition] = row
}

// has reports whether the member's session covers the partition.
func (c coverage) has(partition, member uint16) bool {
	row := c[partition]
	return int(member/64) < len(row) && row[member/64]&(1<<(member%64)) != 0
}

// drop notes that the member's session covers nothing.
func (c coverage) drop(member uint16) {
	for partition, row := range c {
		if int(member/64) >= len(row) {
			continue
		}
		rest := uint64(0)
		row[member/64] &^= 1 << (member % 64)
		for _, bits := range row {
			rest |= bits
		}
		if rest == 0 {
			delete(c, partition)
		}
	}
}

// bytes is about how much memory that takes.
func (c coverage) bytes() (n int) {
	for _, row := range c {
		n += 8*cap(row) + 40
	}
	return n
}

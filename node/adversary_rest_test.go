package node

func headerAttacks() []attack  { return nil }
func sizeAttacks() []attack    { return nil }
func contentAttacks() []attack { return nil }
func privateAttacks() []attack { return nil }
func nameAttacks() []attack    { return nil }

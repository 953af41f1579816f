package node

func contentAttacks() []attack { return nil }
func privateAttacks() []attack { return nil }
func nameAttacks() []attack    { return nil }

package placement

// amounts are quantities that can be compared member by member: CPU units, MiB, addresses, GPUs.
type amounts [4]int64

const (
	ofCPU = iota
	ofMemory
	ofAddresses
	ofGPUs
)

// nothing covers no request, not even an empty one.
var nothing = amounts{-1, -1, -1, -1}

func (a *amounts) covers(need *amounts) bool {
	return a[0] >= need[0] && a[1] >= need[1] && a[2] >= need[2] && a[3] >= need[3]
}

func (a *amounts) raise(b *amounts) {
	a[0], a[1], a[2], a[3] = max(a[0], b[0]), max(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])
}

// index finds hosts with enough left without asking each: a complete binary tree over their
// positions, in which a node holds the most of each resource that any leaf below it has. The maxima
// of a node may come from different leaves, so a node can promise what no leaf holds; it never hides
// one that does.
type index struct {
	nodes  []amounts // 1 is the root, i's children are 2i and 2i+1, leaf p is leaves+p
	leaves int       // a power of two
}

func (x *index) reset(n int) {
	x.leaves = 1
	for x.leaves < n {
		x.leaves *= 2
	}
	x.nodes = make([]amounts, 2*x.leaves)
	for i := range x.nodes {
		x.nodes[i] = nothing
	}
}

// put sets a leaf; build must follow.
func (x *index) put(pos int, a amounts) { x.nodes[x.leaves+pos] = a }

func (x *index) build() {
	for i := x.leaves - 1; i >= 1; i-- {
		x.nodes[i] = x.nodes[2*i]
		x.nodes[i].raise(&x.nodes[2*i+1])
	}
}

// set changes a leaf and what stands above it.
func (x *index) set(pos int, a amounts) {
	i := x.leaves + pos
	x.nodes[i] = a
	for i /= 2; i >= 1; i /= 2 {
		most := x.nodes[2*i]
		most.raise(&x.nodes[2*i+1])
		if x.nodes[i] == most {
			return
		}
		x.nodes[i] = most
	}
}

// next returns the first position from the given one on whose amounts cover the need, or -1.
func (x *index) next(from int, need amounts) int {
	if from >= x.leaves {
		return -1
	}
	i := x.leaves + from
	for {
		if x.nodes[i].covers(&need) {
			if i >= x.leaves {
				return i - x.leaves
			}
			i *= 2
			continue
		}
		// Leave this subtree for the next one to its right.
		for i&1 == 1 {
			i /= 2
		}
		if i == 0 {
			return -1
		}
		i++
	}
}

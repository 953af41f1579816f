package membership

import (
	"bytes"
	"compress/lzw"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// hostilePackets returns how many packets a test sends. It opens a twentieth as
// many streams.
func hostilePackets() int {
	if os.Getenv("MESH_TEST_FIGURES") != "" {
		return 1_000_000
	}
	return 20_000
}

// A tap is a node's network on which a test listens and sends. None of the test's
// packets gets lost.
type tap struct {
	*memberlist.NetTransport
	packets chan *memberlist.Packet
	streams chan net.Conn
	done    chan struct{}
	tasks   sync.WaitGroup

	mu         sync.Mutex
	heardInAll [2][][]byte // packets and streams that came
}

// newTap opens a tap on a free port of loopback.
func newTap(t *testing.T) (*tap, string) {
	t.Helper()
	network, err := memberlist.NewNetTransport(&memberlist.NetTransportConfig{BindAddrs: []string{"127.0.0.1"}, Logger: slog.NewLogLogger(slog.DiscardHandler, 0)})
	if err != nil {
		t.Fatal(err)
	}
	p := &tap{NetTransport: network, packets: make(chan *memberlist.Packet), streams: make(chan net.Conn), done: make(chan struct{})}
	p.tasks.Go(func() {
		for {
			select {
			case packet := <-network.PacketCh():
				p.note(0, packet.Buf)
				p.inject(packet)
			case conn := <-network.StreamCh():
				p.stream(&recorded{Conn: conn, tap: p})
			case <-p.done:
				return
			}
		}
	})
	return p, net.JoinHostPort("127.0.0.1", strconv.Itoa(network.GetAutoBindPort()))
}

func (p *tap) PacketCh() <-chan *memberlist.Packet { return p.packets }
func (p *tap) StreamCh() <-chan net.Conn           { return p.streams }

func (p *tap) Shutdown() error {
	err := p.NetTransport.Shutdown()
	close(p.done)
	p.tasks.Wait()
	return err
}

func (p *tap) inject(packet *memberlist.Packet) {
	select {
	case p.packets <- packet:
	case <-p.done:
	}
}

func (p *tap) stream(conn net.Conn) {
	select {
	case p.streams <- conn:
	case <-p.done:
		_ = conn.Close()
	}
}

// note keeps the first packets and streams that came.
func (p *tap) note(kind int, b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.heardInAll[kind]) < 500 {
		p.heardInAll[kind] = append(p.heardInAll[kind], bytes.Clone(b))
	}
}

// heard returns the packets and the streams that came.
func (p *tap) heard() (packets, streams [][]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.heardInAll[0]), slices.Clone(p.heardInAll[1])
}

// A recorded stream is noted when it is closed.
type recorded struct {
	net.Conn
	tap  *tap
	came []byte
	once sync.Once
}

func (r *recorded) Read(b []byte) (int, error) {
	n, err := r.Conn.Read(b)
	r.came = append(r.came, b[:n]...)
	return n, err
}

func (r *recorded) Close() error {
	r.once.Do(func() { r.tap.note(1, r.came) })
	return r.Conn.Close()
}

// say opens a stream to the node, writes to it, and returns the answer.
func (p *tap) say(said []byte, wait bool) (answer []byte) {
	here, there := net.Pipe()
	p.stream(there)
	_ = here.SetDeadline(time.Now().Add(2 * time.Second))
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = here.Write(said)
		if !wait {
			_ = here.Close()
		}
	}()
	answer, _ = io.ReadAll(here)
	_ = here.Close()
	<-done
	return answer
}

// An attacker makes hostile messages out of those that it has heard.
type attacker struct {
	*rand.Rand
	heard [][]byte
	plain [][]byte // the same, decrypted
	kind  bool     // streams
}

var hostileHead = append([]byte{labelByte, byte(len(program))}, program...)

// seal encrypts as memberlist does.
func seal(version byte, key, plain []byte, streamed bool) []byte {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	sealed := append([]byte{version}, make([]byte, gcm.NonceSize())...)
	for i := range gcm.NonceSize() {
		sealed[1+i] = byte(rand.Uint32())
	}
	front, with := bytes.Clone(hostileHead), []byte(program)
	if streamed {
		size := binary.BigEndian.AppendUint32([]byte{encryptedByte}, uint32(1+gcm.NonceSize()+len(plain)+gcm.Overhead()))
		front, with = append(front, size...), append(bytes.Clone(size), program...)
	}
	return append(front, gcm.Seal(sealed, sealed[1:], plain, with)...)
}

// unseal decrypts what seal has made. It returns nil if it can't.
func unseal(key, b []byte, streamed bool) []byte {
	b, ok := bytes.CutPrefix(b, hostileHead)
	with := []byte(program)
	if streamed && ok && len(b) > 5 {
		with = append(bytes.Clone(b[:5]), program...)
		b = b[5:]
	}
	block, err := aes.NewCipher(key)
	if err != nil || !ok || len(b) < cipherLeast {
		return nil
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil
	}
	plain, err := gcm.Open(nil, b[1:13], b[13:], with)
	if err != nil {
		return nil
	}
	return plain
}

// pick returns a copy of one of them.
func (a *attacker) pick(all [][]byte) []byte { return bytes.Clone(all[a.IntN(len(all))]) }

func (a *attacker) noise(most int) []byte {
	b := make([]byte, 1+a.IntN(most))
	for i := range b {
		b[i] = byte(a.Uint32())
	}
	return b
}

// spoil damages the message.
func (a *attacker) spoil(b []byte) []byte {
	switch a.IntN(6) {
	case 0:
		return b[:a.IntN(len(b))]
	case 1:
		return append(b, a.noise(2000)...)
	case 2: // repeats a part, or leaves it out
		i, j := a.IntN(len(b)), a.IntN(len(b))
		return append(b[:i:i], b[j:]...)
	case 3:
		for range 1 + a.IntN(4) {
			b[a.IntN(len(b))] = [...]byte{0, 1, 0x7f, 0x80, 0xff, 0xdd, 0xc6, 0xdf}[a.IntN(8)]
		}
		return b
	default:
		for range 1 + a.IntN(8) {
			b[a.IntN(len(b))] ^= 1 << a.IntN(8)
		}
		return b
	}
}

// bomb returns a megabyte compressed to some hundred bytes.
func (a *attacker) bomb() []byte {
	var b bytes.Buffer
	w := lzw.NewWriter(&b, lzw.LSB, 8)
	_, _ = w.Write(bytes.Repeat([]byte{byte(a.IntN(14))}, 1<<20))
	_ = w.Close()
	return append([]byte{9}, message("Algo", 0, "Buf", b.Bytes())...) // compressMsg
}

// message encodes a map as memberlist does.
func message(fields ...any) []byte {
	out := []byte{0x80 | byte(len(fields)/2)}
	for _, f := range fields {
		switch f := f.(type) {
		case string:
			out = append(append(out, 0xda), binary.BigEndian.AppendUint16(nil, uint16(len(f)))...)
			out = append(out, f...)
		case []byte:
			out = append(append(out, 0xda), binary.BigEndian.AppendUint16(nil, uint16(len(f)))...)
			out = append(out, f...)
		case int:
			out = append(append(out, 0xce), binary.BigEndian.AppendUint32(nil, uint32(f))...)
		}
	}
	return out
}

// join returns what a node says that wants to be a member, like the packet of 54
// bytes (see TestGarbageKillsNobodyAndAdmitsNobody).
func (a *attacker) join() []byte {
	versions := [][]byte{nil, {1}, {1, 5, 2, 0, 0, 0}, {1, 5, 2, 0, 0}}[a.IntN(4)]
	return append([]byte{4}, message("Incarnation", 1, "Node", "rogue", "Addr", []byte{10, 0, 0, 9}, "Port", 7946, "Vsn", versions)...)
}

// strange returns a message that no member has sealed.
func (a *attacker) strange() []byte {
	other := derive(defaultCluster, []string{"the secret of other people"}, forGossip)[0]
	switch a.IntN(10) {
	case 0: // a replay
		return a.pick(a.heard)
	case 1:
		return append(bytes.Clone(hostileHead), a.noise(1400)...)
	case 2:
		return a.noise(1400)
	case 3:
		return append(append([]byte{labelByte, 5}, "other"...), a.pick(a.heard)[len(hostileHead):]...)
	case 4:
		return seal(1, other, a.pick(a.plain), a.kind)
	case 5:
		return append(bytes.Clone(hostileHead), a.pick(a.plain)...)
	case 6:
		return slices.Concat([][]byte{nil, hostileHead}[a.IntN(2)], a.join())
	case 7:
		if a.IntN(200) > 0 {
			return a.spoil(a.pick(a.heard))
		}
		return append(a.pick(a.heard), make([]byte, 60_000)...)
	case 8:
		if a.IntN(100) > 0 {
			return append(bytes.Clone(hostileHead), a.spoil(a.pick(a.plain))...)
		}
		return append(bytes.Clone(hostileHead), a.bomb()...)
	default:
		return a.spoil(a.pick(a.heard))
	}
}

// traitorous returns a message that is sealed with the right key, and wrong inside.
func (a *attacker) traitorous() []byte {
	key := derive(defaultCluster, []string{secret}, forGossip)[0]
	switch a.IntN(8) {
	case 0:
		return seal(1, key, a.noise(1000), a.kind)
	case 1:
		return seal(1, key, append([]byte{byte(a.IntN(16))}, a.noise(300)...), a.kind)
	case 2:
		return seal(1, key, a.join(), a.kind)
	case 3:
		if a.IntN(100) == 0 {
			return seal(1, key, a.bomb(), a.kind)
		}
		return seal(0, key, append(a.noise(100), 255), a.kind) // padding longer than the message
	case 4:
		return seal(byte(a.IntN(2)), key, nil, a.kind)
	default:
		return seal(1, key, a.spoil(a.pick(a.plain)), a.kind)
	}
}

// A pair is two members. The test listens and sends on the network of one.
type pair struct {
	t      *testing.T
	a, b   *Membership
	tap    *tap
	before runtime.MemStats
	peak   atomic.Uint64
	gs     int
}

// newPair starts two members, and listens until it has heard enough messages.
func newPair(t *testing.T, change ...func(*Config)) (*pair, *attacker, *attacker) {
	t.Helper()
	if testing.Short() {
		t.Skip("slow: it sends thousands of messages and measures memory")
	}
	p := &pair{t: t}
	var at string
	p.tap, at = newTap(t)
	p.a = open(t, append(change, func(c *Config) { c.BindAddr, c.Transport = at, p.tap })...)
	p.b = open(t, append(change, seeds(at))...)
	sees(t, p.a, 2)
	sees(t, p.b, 2)
	key := derive(defaultCluster, []string{secret}, forGossip)[0]
	packets, streams := &attacker{Rand: rand.New(rand.NewPCG(1, 1))}, &attacker{Rand: rand.New(rand.NewPCG(2, 2)), kind: true}
	poll(t, "enough messages were heard", func() bool {
		packets.heard, streams.heard = p.tap.heard()
		return len(packets.heard) >= 10 && len(streams.heard) >= 1
	})
	for _, one := range []*attacker{packets, streams} {
		for _, h := range one.heard {
			if plain := unseal(key, h, one.kind); len(plain) > 0 {
				one.plain = append(one.plain, plain)
			}
		}
		if !p.a.keys.encrypted() {
			for _, h := range one.heard {
				one.plain = append(one.plain, bytes.TrimPrefix(h, hostileHead))
			}
		}
		if len(one.plain) == 0 {
			t.Fatal("none of the messages heard could be decrypted")
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&p.before)
	p.gs = runtime.NumGoroutine()
	return p, packets, streams
}

// send sends n packets and a twentieth as many streams. It calls look now and then.
func (p *pair) send(n int, packet, stream func() []byte, look func()) {
	p.t.Helper()
	from := &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 7946}
	work := make(chan []byte)
	var streams sync.WaitGroup
	for range 8 {
		streams.Go(func() {
			for said := range work {
				p.tap.say(said, false)
			}
		})
	}
	start := time.Now()
	for i := range n {
		p.tap.inject(&memberlist.Packet{Buf: packet(), From: from, Timestamp: time.Now()})
		if i%20 == 0 {
			work <- stream()
		}
		if i%1000 == 0 {
			look()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			p.peak.Store(max(p.peak.Load(), m.HeapAlloc))
		}
	}
	close(work)
	streams.Wait()
	p.t.Logf("%d packets and %d streams in %v; the heap had at most %d MiB, before %d MiB", n, (n+19)/20, time.Since(start).Round(time.Millisecond), p.peak.Load()>>20, p.before.HeapAlloc>>20)
	if p.peak.Load() > p.before.HeapAlloc+256<<20 {
		p.t.Error("the node took too much memory")
	}
}

// works fails the test unless the two are still members of one mesh, and a third
// can join them.
func (p *pair) works(change ...func(*Config)) {
	p.t.Helper()
	c := open(p.t, append(change, seeds(p.a.at.gossip), func(c *Config) { c.Name = "third" })...)
	for _, m := range []*Membership{p.a, p.b, c} {
		sees(p.t, m, 3)
	}
	poll(p.t, "memory and goroutines were given back", func() bool {
		var after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&after)
		return after.HeapAlloc < p.before.HeapAlloc+16<<20 && runtime.NumGoroutine() < p.gs+50
	})
}

// poll waits until so returns true.
func poll(t *testing.T, what string, so func() bool) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	timeout := time.NewTimer(20 * time.Second)
	defer timeout.Stop()
	for !so() {
		select {
		case <-tick.C:
		case <-timeout.C:
			t.Fatalf("still not after 20 s: %s", what)
		}
	}
}

// A stranger that does not know the secret, and replays or varies messages, does
// not become a member and crashes nobody.
func TestHostileGossipOfStrangers(t *testing.T) {
	p, packets, streams := newPair(t, secrets(secret))
	ids := []string{p.a.self.ID, p.b.self.ID}
	p.send(hostilePackets(), packets.strange, streams.strange, func() {
		for _, m := range []*Membership{p.a, p.b} {
			for _, one := range m.View().Members {
				if !slices.Contains(ids, one.ID) {
					t.Fatalf("%+v became a member", one)
				}
			}
		}
	})
	sees(t, p.a, 2)
	if n := len(p.a.View().Members); n != 2 {
		t.Errorf("%d members", n)
	}
	p.works(secrets(secret))
}

// A member may say what it likes about the others, but crashes nobody.
func TestHostileGossipOfAMember(t *testing.T) {
	for name, change := range map[string]func(*Config){"with a secret": secrets(secret), "without": secrets()} {
		t.Run(name, func(t *testing.T) {
			p, packets, streams := newPair(t, change)
			ids := []string{p.a.self.ID, p.b.self.ID}
			wrong := func(a *attacker) func() []byte {
				if p.a.keys.encrypted() {
					return a.traitorous
				}
				return a.strange
			}
			p.send(hostilePackets()/4, wrong(packets), wrong(streams), func() {
				for _, one := range p.a.View().Members {
					if !slices.Contains(ids, one.ID) {
						t.Fatalf("%+v became a member", one)
					}
				}
			})
			p.works(change)
		})
	}
}

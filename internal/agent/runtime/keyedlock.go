package runtime

import "sync"

// keyedLock is a reader-writer lock for each of any number of names.
type keyedLock struct {
	mu    sync.Mutex
	locks map[string]*countedLock
}

type countedLock struct {
	sync.RWMutex
	users int
}

// lock takes the name's lock alone and answers what gives it back.
func (k *keyedLock) lock(name string) (unlock func()) {
	l := k.enter(name)
	l.Lock()
	return func() {
		l.Unlock()
		k.leave(name, l)
	}
}

// share takes the name's lock together with others who share it.
func (k *keyedLock) share(name string) (unlock func()) {
	l := k.enter(name)
	l.RLock()
	return func() {
		l.RUnlock()
		k.leave(name, l)
	}
}

func (k *keyedLock) enter(name string) *countedLock {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.locks == nil {
		k.locks = map[string]*countedLock{}
	}
	l, ok := k.locks[name]
	if !ok {
		l = &countedLock{}
		k.locks[name] = l
	}
	l.users++
	return l
}

func (k *keyedLock) leave(name string, l *countedLock) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if l.users--; l.users == 0 {
		delete(k.locks, name)
	}
}

package journal

// Viewer is what can be read: a *Journal, or what stands for one in a test.
type Viewer interface {
	View(fn func(*Tx) error) error
}

var _ Viewer = (*Journal)(nil)

// Copies returns all Copies of this Host.
func Copies(j Viewer) (all []Copy, err error) {
	err = j.View(func(tx *Tx) (err error) {
		all, err = tx.Copies().All()
		return err
	})
	return all, err
}

// Endpoints returns all endpoints of this Host.
func Endpoints(j Viewer) (all []Endpoint, err error) {
	err = j.View(func(tx *Tx) (err error) {
		all, err = tx.Endpoints().All()
		return err
	})
	return all, err
}

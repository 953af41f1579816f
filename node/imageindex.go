package node

import (
	"cmp"
	"slices"

	"oci-proxy/transfer/holdings"
	"oci-proxy/transfer/oci"
)

// An imageIndex finds images by their names, without a look at all of them.
type imageIndex struct {
	images []holdings.Image // by registry, repository and tag
	pinned []int32          // places in images, by registry, repository and digest
}

// newImageIndex returns the index of images, which are sorted by name.
func newImageIndex(images []holdings.Image) *imageIndex {
	x := &imageIndex{images: images, pinned: make([]int32, len(images))}
	for i := range x.pinned {
		x.pinned[i] = int32(i)
	}
	slices.SortStableFunc(x.pinned, func(a, b int32) int {
		return x.byDigest(a, oci.Ref{Registry: images[b].Ref.Registry, Repository: images[b].Ref.Repository, Digest: images[b].Digest})
	})
	return x
}

// inRepository compares an image's repository with that of ref.
func inRepository(one *holdings.Image, ref oci.Ref) int {
	return cmp.Or(cmp.Compare(one.Ref.Registry, ref.Registry), cmp.Compare(one.Ref.Repository, ref.Repository))
}

// byDigest compares the image at a place with ref, by repository and digest.
func (x *imageIndex) byDigest(place int32, ref oci.Ref) int {
	one := &x.images[place]
	return cmp.Or(inRepository(one, ref), cmp.Compare(one.Digest, ref.Digest))
}

// find returns the image that ref names, nil if there is none.
func (x *imageIndex) find(ref oci.Ref) *holdings.Image {
	if ref.Digest != "" {
		if i, found := slices.BinarySearchFunc(x.pinned, ref, x.byDigest); found {
			return &x.images[x.pinned[i]]
		}
		return nil
	}
	if i, found := x.from(ref); found {
		return &x.images[i]
	}
	return nil
}

// from is where the images of ref's repository begin whose tag is that of ref or a later one.
func (x *imageIndex) from(ref oci.Ref) (place int, found bool) {
	return slices.BinarySearchFunc(x.images, ref, func(one holdings.Image, ref oci.Ref) int {
		return cmp.Or(inRepository(&one, ref), cmp.Compare(one.Ref.Tag, ref.Tag))
	})
}

// tags are other tags of ref's repository, sorted, lookupTags at most. It looks at ten times
// as many at most: of all the others, many may mean what ref names.
func (x *imageIndex) tags(ref oci.Ref) (tags []string) {
	start, _ := x.from(oci.Ref{Registry: ref.Registry, Repository: ref.Repository, Tag: "\x00"}) // after those without a tag
	for _, one := range x.images[start:min(start+10*lookupTags, len(x.images))] {
		if inRepository(&one, ref) != 0 || len(tags) == lookupTags {
			break
		}
		if own := one.Ref.Tag == ref.Tag || ref.Digest != "" && one.Digest == ref.Digest; !own {
			tags = append(tags, one.Ref.Tag)
		}
	}
	return tags
}

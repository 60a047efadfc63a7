package cluster

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/streaming"
	"k8s.io/apimachinery/pkg/watch"
	restwatch "k8s.io/client-go/rest/watch"
	"pgregory.net/rapid"
)

// protobuf are the codecs of what an API server sends.
func protobuf(t rapid.TB, of runtime.NegotiatedSerializer) runtime.SerializerInfo {
	t.Helper()
	info, ok := runtime.SerializerInfoForMediaType(of.SupportedMediaTypes(), runtime.ContentTypeProtobuf)
	if !ok {
		t.Fatal("there is no protobuf")
	}
	return info
}

func codecs(t rapid.TB) runtime.NegotiatedSerializer {
	t.Helper()
	all, err := scheme()
	if err != nil {
		t.Fatal(err)
	}
	return all.WithoutConversion()
}

// encodeEvent is a watch's event about an object, as an API server sends it.
func encodeEvent(t rapid.TB, kind watch.EventType, o runtime.Object) []byte {
	t.Helper()
	all := codecs(t)
	info := protobuf(t, all)
	raw, err := runtime.Encode(all.EncoderForVersion(info.Serializer, corev1.SchemeGroupVersion), o)
	if _, is := o.(*networkingv1.NetworkPolicy); is {
		raw, err = runtime.Encode(all.EncoderForVersion(info.Serializer, networkingv1.SchemeGroupVersion), o)
	}
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := info.StreamSerializer.Serializer.Encode(&metav1.WatchEvent{Type: string(kind), Object: runtime.RawExtension{Raw: raw}}, &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// decodeEvent decodes an event as client-go does.
func decodeEvent(t rapid.TB, of runtime.NegotiatedSerializer, event []byte) (watch.EventType, runtime.Object, error) {
	t.Helper()
	info := protobuf(t, of)
	var framed bytes.Buffer
	if _, err := info.StreamSerializer.Framer.NewFrameWriter(&framed).Write(event); err != nil {
		t.Fatal(err)
	}
	r := info.StreamSerializer.Framer.NewFrameReader(nopCloser{&framed})
	d := restwatch.NewDecoder(streaming.NewDecoder(r, info.StreamSerializer.Serializer), of.DecoderToVersion(info.Serializer, corev1.SchemeGroupVersion))
	return d.Decode()
}

type nopCloser struct{ *bytes.Buffer }

func (nopCloser) Close() error { return nil }

// draw changes a value to one with what may stand there, and with what means something here.
func draw(t *rapid.T, v reflect.Value, depth int) {
	switch v.Kind() {
	case reflect.Struct:
		if at, is := v.Addr().Interface().(*metav1.Time); is {
			*at = metav1.Unix(rapid.Int64Range(0, 1<<33).Draw(t, "time"), 0)
			return
		}
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() && f.Type != reflect.TypeFor[metav1.TypeMeta]() && rapid.IntRange(0, 3).Draw(t, "other") == 0 {
				draw(t, v.Field(i), depth)
			}
		}
	case reflect.Pointer:
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		draw(t, v.Elem(), depth)
	case reflect.Slice:
		for i := range v.Len() {
			draw(t, v.Index(i), depth+1)
		}
		for range rapid.IntRange(0, max(0, 3-depth)).Draw(t, "length") {
			v.Set(reflect.Append(v, reflect.Zero(v.Type().Elem())))
			draw(t, v.Index(v.Len()-1), depth+1)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range rapid.IntRange(0, 3).Draw(t, "entries") {
			key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			draw(t, key, depth+1)
			draw(t, value, depth+1)
			v.SetMapIndex(key, value)
		}
	case reflect.String:
		v.SetString(rapid.SampledFrom(texts).Draw(t, "text"))
	case reflect.Bool:
		v.SetBool(rapid.Bool().Draw(t, "flag"))
	case reflect.Int32, reflect.Int64:
		v.SetInt(rapid.Int64Range(-1, 70_000).Draw(t, "number"))
	case reflect.Uint8:
		v.SetUint(uint64(rapid.Byte().Draw(t, "byte")))
	}
}

var texts = func() []string {
	all := append([]string{
		"", "n1", "n2", "true", "TCP", "UDP", "Always", "Pending", "Running", "Succeeded", "InternalIP", "192.0.2.11", "2001:db8::11",
		"10.244.1.0/24", "fd00:1::/64", "12:c6:65:89:b4:e3", `{"VtepMAC":"12:c6:65:89:b4:e3"}`, metav1.InitialEventsAnnotationKey, corev1.MirrorPodAnnotationKey, strings.Repeat("x", 200),
	}, annotations...)
	for _, c := range conditions {
		all = append(all, string(c))
	}
	return all
}()

// keptTheSame says that of an object that is streamed the same is kept whether all of it
// is decoded or what is of use, and that a bookmark still says that a list has ended.
func keptTheSame(t rapid.TB, kind watch.EventType, o runtime.Object) {
	t.Helper()
	event := encodeEvent(t, kind, o)
	before := bytes.Clone(event)
	_, all, err := decodeEvent(t, codecs(t), event)
	if err != nil {
		t.Fatal(err)
	}
	got, sifted, err := decodeEvent(t, sifting{codecs(t)}, event)
	if err != nil || got != kind || reflect.TypeOf(sifted) != reflect.TypeOf(all) || !bytes.Equal(event, before) {
		t.Fatalf("%s %T: %v", got, sifted, err)
	}
	end := func(o runtime.Object) string {
		return o.(metav1.Object).GetAnnotations()[metav1.InitialEventsAnnotationKey]
	}
	if end(all) != end(sifted) {
		t.Fatalf("the end of the list: %q, want %q", end(sifted), end(all))
	}
	want, err := New("n1", nil).trim(all)
	if err != nil {
		t.Fatal(err)
	}
	if kept, err := New("n1", nil).trim(sifted); err != nil || !reflect.DeepEqual(kept, want) {
		t.Fatalf("kept %+v, %v\nwant %+v", kept, err, want)
	}
}

// TestSift streams whatever objects there may be.
func TestSift(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := rapid.SampledFrom([]runtime.Object{someNode(), somePod(), &corev1.Namespace{}, &networkingv1.NetworkPolicy{}}).Draw(t, "of")
		draw(t, reflect.ValueOf(o).Elem(), 0)
		keptTheSame(t, rapid.SampledFrom([]watch.EventType{watch.Added, watch.Modified, watch.Deleted, watch.Bookmark}).Draw(t, "event"), o)
	})
}

// TestSiftWhatDecides streams objects of which one field decides.
func TestSiftWhatDecides(t *testing.T) {
	ended, block, own, end := somePod(), someNode(), someNode(), &corev1.Pod{}
	ended.Status.Phase = corev1.PodSucceeded
	block.Spec = corev1.NodeSpec{PodCIDR: "10.244.1.0/24"}
	own.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady}, {Type: networkUnavailable, Status: corev1.ConditionTrue}, {Type: peers}}
	end.Annotations = map[string]string{metav1.InitialEventsAnnotationKey: "true"}
	for _, o := range []runtime.Object{ended, block, own, end} {
		keptTheSame(t, watch.Added, o)
	}
}

// TestSiftsOut: what is of no use is not decoded.
func TestSiftsOut(t *testing.T) {
	node := someNode()
	node.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubelet"}}
	node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady}, {Type: networkUnavailable}}
	pod := somePod()
	pod.ManagedFields, pod.Status.ContainerStatuses = node.ManagedFields, []corev1.ContainerStatus{{Name: "first"}}
	for _, o := range []runtime.Object{node, pod} {
		_, got, err := decodeEvent(t, sifting{codecs(t)}, encodeEvent(t, watch.Added, o))
		if err != nil {
			t.Fatal(err)
		}
		switch o := got.(type) {
		case *corev1.Node:
			if len(o.Annotations)+len(o.Labels)+len(o.ManagedFields)+len(o.Status.Images) > 0 || len(o.Status.Conditions) != 1 {
				t.Errorf("%+v", o)
			}
		case *corev1.Pod:
			if len(o.Annotations)+len(o.ManagedFields)+len(o.Status.ContainerStatuses) > 0 || o.Spec.Containers[0].Image != "" {
				t.Errorf("%+v", o)
			}
		}
	}
}

// TestSiftError is what a server says where a watch cannot go on.
func TestSiftError(t *testing.T) {
	status := &metav1.Status{Status: metav1.StatusFailure, Code: 410, Reason: metav1.StatusReasonExpired, Message: "too old"}
	kind, o, err := decodeEvent(t, sifting{codecs(t)}, encodeEvent(t, watch.Error, status))
	if got, is := o.(*metav1.Status); err != nil || kind != watch.Error || !is || got.Reason != status.Reason || got.Message != status.Message {
		t.Errorf("%s %+v, %v", kind, o, err)
	}
}

// FuzzSift: whatever comes, it is sifted or it is left to who decodes it; what is
// sifted is not larger, and stays as it is when it is sifted again.
func FuzzSift(f *testing.F) {
	for _, o := range []runtime.Object{someNode(), somePod(), &corev1.Namespace{}, &networkingv1.NetworkPolicy{}} {
		f.Add(encodeEvent(f, watch.Added, o))
	}
	f.Fuzz(func(t *testing.T, event []byte) {
		once, ok := siftEvent(nil, event)
		if !ok {
			return
		}
		if len(once) > len(event) {
			t.Fatalf("%d bytes became %d", len(event), len(once))
		}
		if again, ok := siftEvent(nil, once); !ok || !bytes.Equal(again, once) {
			t.Fatalf("%q became %q", once, again)
		}
	})
}

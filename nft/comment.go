package nft

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxComment is what nft(8) reads of a comment (NFTNL_UDATA_COMMENT_MAXLEN
// less the NUL).
const MaxComment = 127

// Comment makes the comment of a rule, or the prefix of a Log, from any text.
// It is cut to what the kernel takes; quotes, for which nft(8) has no escape,
// become apostrophes, and what cannot be printed on a line spaces.
func Comment(text string) string {
	clean := strings.Map(func(r rune) rune {
		switch {
		case r == '"':
			return '\''
		case !unicode.IsPrint(r):
			return ' '
		}
		return r
	}, text)
	if len(clean) <= MaxComment {
		return clean
	}
	end := MaxComment
	for !utf8.RuneStart(clean[end]) {
		end--
	}
	return clean[:end]
}

package selector

const (
	// maxNesting is how deeply brackets may be nested. Reading, evaluating and
	// printing call themselves at each level.
	maxNesting = 500
	// maxLabel is Calico's limit for the name of a label.
	maxLabel = 512
)

// Parse reads an expression. An empty one is all(), as in Calico. The error, if
// any, is a *SyntaxError.
func Parse(text string) (*Selector, error) {
	p := parser{text: text}
	p.next()
	if p.tok.kind == tokenEnd {
		return All(), nil
	}
	root, err := p.disjunction(false)
	if err != nil {
		return nil, err
	}
	if p.tok.kind != tokenEnd {
		return nil, p.trailing()
	}
	return newSelector(root), nil
}

// parser descends through the grammar. What is under a ! is read as its
// negation at once.
type parser struct {
	text  string
	tok   token // the one to be read
	last  token // the one before
	depth int
}

func (p *parser) next() {
	p.last = p.tok
	p.tok = lex(p.text, p.last.end())
}

func (p *parser) disjunction(negated bool) (node, error) {
	return p.operands("||", opOr, negated, p.conjunction)
}

func (p *parser) conjunction(negated bool) (node, error) {
	return p.operands("&&", opAnd, negated, p.operand)
}

func (p *parser) operands(symbol string, op op, negated bool, read func(bool) (node, error)) (node, error) {
	first, err := read(negated)
	if err != nil || !p.tok.is(symbol) {
		return first, err
	}
	operands := []node{first}
	for p.tok.is(symbol) {
		p.next()
		n, err := read(negated)
		if err != nil {
			return node{}, err
		}
		operands = append(operands, n)
	}
	if negated {
		op = op.dual()
	}
	return combine(op, operands), nil
}

func (p *parser) operand(negated bool) (node, error) {
	for p.tok.is("!") {
		negated = !negated
		p.next()
	}
	if p.tok.is("(") {
		return p.group(negated)
	}
	if p.tok.kind != tokenWord {
		return node{}, p.noOperand()
	}
	word := p.tok
	p.next()
	read := p.test
	if p.tok.is("(") {
		read = p.call
	}
	n, err := read(word)
	if err == nil && negated {
		n = n.negation()
	}
	return n, err
}

func (p *parser) group(negated bool) (node, error) {
	open := p.tok
	if p.depth++; p.depth > maxNesting {
		return node{}, p.fail(open, "brackets are nested more than %d deep", maxNesting)
	}
	p.next()
	n, err := p.disjunction(negated)
	switch {
	case err != nil:
		return node{}, err
	case p.tok.kind == tokenEnd:
		return node{}, p.fail(open, "this bracket is not closed; ) is missing")
	case !p.tok.is(")"):
		return node{}, p.trailing()
	}
	p.depth--
	p.next()
	return n, nil
}

// call reads the rest of all() and has(label).
func (p *parser) call(function token) (node, error) {
	if function.text != "all" && function.text != "has" {
		return node{}, p.noFunction(function)
	}
	open := p.tok
	p.next()
	n := everything
	if function.text == "has" {
		label := p.tok
		if label.kind != tokenWord {
			return node{}, p.noLabel(function)
		}
		if err := p.checkLabel(label); err != nil {
			return node{}, err
		}
		n = has(label.text)
		p.next()
	}
	if !p.tok.is(")") {
		return node{}, p.notClosed(function, open)
	}
	p.next()
	return n, nil
}

// test reads the rest of a comparison.
func (p *parser) test(label token) (node, error) {
	o, name := p.operator()
	if name == "" {
		return node{}, p.noOperator(label)
	}
	if err := p.checkLabel(label); err != nil {
		return node{}, err
	}
	switch name {
	case "in":
		values, err := p.set(o, name)
		return in(label.text, values), err
	case "not in":
		values, err := p.set(o, name)
		return in(label.text, values).negation(), err
	}
	if p.tok.kind != tokenString {
		return node{}, p.noValue(o, name)
	}
	value := p.tok.value()
	p.next()
	switch name {
	case "contains":
		return part(opContains, label.text, value), nil
	case "starts with":
		return part(opStartsWith, label.text, value), nil
	case "ends with":
		return part(opEndsWith, label.text, value), nil
	case "!=":
		return in(label.text, []string{value}).negation(), nil
	}
	return in(label.text, []string{value}), nil
}

// spellings are the words of operators, written in one.
var spellings = map[string]string{
	"in": "in", "notin": "not in",
	"contains": "contains", "startswith": "starts with", "endswith": "ends with",
}

// operator reads an operator and gives its canonical name, or reads nothing and
// gives none.
func (p *parser) operator() (o token, name string) {
	switch {
	case p.tok.is("==") || p.tok.is("!="):
		name = p.tok.text
	case p.tok.kind == tokenWord:
		word := p.tok.text
		second := lex(p.text, p.tok.end())
		if word == "not" && second.text == "in" || (word == "starts" || word == "ends") && second.text == "with" {
			word += second.text
			p.tok.text = p.text[p.tok.start:second.end()]
		}
		name = spellings[word]
	}
	if o = p.tok; name != "" {
		p.next()
	}
	return o, name
}

// set reads values in braces. A comma may follow the last.
func (p *parser) set(o token, name string) ([]string, error) {
	open := p.tok
	if !open.is("{") {
		return nil, p.noSet(o, name)
	}
	p.next()
	var values []string
	for p.tok.kind == tokenString {
		values = append(values, p.tok.value())
		if p.next(); !p.tok.is(",") {
			break
		}
		p.next()
	}
	if !p.tok.is("}") {
		return nil, p.badSet(open)
	}
	p.next()
	return values, nil
}

func (p *parser) checkLabel(label token) error {
	if len(label.text) > maxLabel {
		return p.fail(label, "the name of a label has at most %d characters; this has %d", maxLabel, len(label.text))
	}
	return nil
}

package main

import "github.com/spf13/cobra"

// completionExamples are what cobra's completion commands lack.
var completionExamples = map[string]string{
	"completion": "  source <(polder completion bash)",
	"bash":       "  polder completion bash > /etc/bash_completion.d/polder",
	"fish":       "  polder completion fish > ~/.config/fish/completions/polder.fish",
	"powershell": "  polder completion powershell | Out-String | Invoke-Expression",
	"zsh":        `  polder completion zsh > "${fpath[1]}/_polder"`,
}

// addCompletionCommand adds cobra's command for completion scripts.
func addCompletionCommand(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		if cmd.Name() != "completion" {
			continue
		}
		for _, c := range commands(cmd) {
			c.Example = completionExamples[c.Name()]
		}
	}
}

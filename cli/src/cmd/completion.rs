//! `weir completion`: a script that completes commands on tab.

use clap_complete::Shell;

/// Print a completion script for your shell
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  source <(weir completion bash)\n  \
    weir completion zsh > ~/.zfunc/_weir\n  \
    weir completion fish > ~/.config/fish/completions/weir.fish")]
pub(crate) struct CompletionArgs {
    shell: Shell,
}

pub(crate) fn run(args: CompletionArgs, mut command: clap::Command) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "weir", &mut script);
    std::io::Write::write_all(&mut std::io::stdout().lock(), &script)?;
    Ok(())
}

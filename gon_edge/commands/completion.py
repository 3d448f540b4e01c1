"""Shell completion, made from the parser, so that it cannot know less than the program.

Completes commands, their options, the choices of an option and file names.  bash and zsh get one function with a table
of words; fish gets a line an option, as it likes them.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator

SHELLS = ("bash", "zsh", "fish")


def completion_script(parser: argparse.ArgumentParser, shell: str) -> str:
    """Return a script that teaches `shell` to complete the program.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        With its commands as subparsers, or without.
    shell : {"bash", "zsh", "fish"}
        bash: ``source <(gon-edge completion bash)``; zsh: the same, or a file ``_gon-edge`` on ``$fpath``; fish:
        ``gon-edge completion fish | source``.
    """
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](parser)


def _commands(parser: argparse.ArgumentParser) -> dict[str, tuple[argparse.ArgumentParser, str]]:
    """Every command with its parser and its one line of help."""
    for action in parser._actions:  # argparse has no public way to look at itself
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            return {name: (command, helps.get(name, "")) for name, command in action.choices.items()}
    return {}


def _options(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    return (action for action in parser._actions if action.option_strings)


def _options_below(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """A command's options, and those of its own commands, each once."""
    found = {action.option_strings[0]: action for action in _options(parser)}
    for sub, _ in _commands(parser).values():
        for action in _options(sub):
            found.setdefault(action.option_strings[0], action)
    return list(found.values())


def _takes_value(action: argparse.Action) -> bool:
    return action.nargs != 0


def _positional_words(parser: argparse.ArgumentParser) -> list[str] | None:
    """Choices of the first positional argument; empty for a file, ``None`` where there is no such argument."""
    for action in parser._actions:
        if not action.option_strings:
            return [str(choice) for choice in action.choices or ()]
    return None


def _function_name(parser: argparse.ArgumentParser) -> str:
    return "_" + re.sub(r"\W", "_", parser.prog)


def _bash(parser: argparse.ArgumentParser) -> str:
    name = _function_name(parser)
    lines = [f"# bash completion for {parser.prog}", f"{name}() {{", *_cases(parser, "    ")]
    lines += [
        '    if [ "$words" = FILES ]; then',
        '        COMPREPLY=($(compgen -f -- "$current")); compopt -o filenames 2>/dev/null',
        "    else",
        '        COMPREPLY=($(compgen -W "$words" -- "$current"))',
        "    fi",
        "}",
        f"complete -F {name} {parser.prog}",
    ]
    return "\n".join(lines) + "\n"


def _cases(parser: argparse.ArgumentParser, indent: str) -> list[str]:
    """Lines that set `words` from the words typed so far: FILES, or what may follow."""
    lines = [
        'local current="${COMP_WORDS[COMP_CWORD]}" previous="${COMP_WORDS[COMP_CWORD-1]}" command="" words="" word',
        'for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do',
        '    case "$word" in -*) ;; *) command="$word"; break ;; esac',
        "done",
        'case "$command" in',
    ]
    for command, (sub, _) in _commands(parser).items():
        lines.append(f"    {command})")
        lines.append('        case "$previous" in')
        for action in _options_below(sub):
            if _takes_value(action):
                words = " ".join(map(str, action.choices)) if action.choices else "FILES"
                lines.append(f'            {"|".join(action.option_strings)}) words="{words}" ;;')
        options = " ".join(option for action in _options_below(sub) for option in action.option_strings)
        if actions := _commands(sub):
            after = f'case "$current" in -*) words="{options}" ;; *) words="FILES" ;; esac'
            lines.append(f"            {'|'.join(actions)}) {after} ;;")
        lines.append("            *)")
        positional = _positional_words(sub)
        without_dash = f'words="{" ".join(positional) or "FILES"}"' if positional is not None else f'words="{options}"'
        lines.append(f'                case "$current" in -*) words="{options}" ;; *) {without_dash} ;; esac ;;')
        lines.append("        esac ;;")
    options = " ".join(option for action in _options(parser) for option in action.option_strings)
    lines.append(
        f'    *) case "$current" in -*) words="{options}" ;; *) words="{" ".join(_commands(parser))}" ;; esac ;;'
    )
    lines.append("esac")
    return [indent + line for line in lines]


def _zsh(parser: argparse.ArgumentParser) -> str:
    name = _function_name(parser)
    lines = [f"#compdef {parser.prog}", f"{name}() {{", '    local context state line command="${words[2]}"']
    lines.append("    local -a commands")
    lines.append("    commands=(")
    lines += [f"        {_quote(f'{command}:{text}')}" for command, (_, text) in _commands(parser).items()]
    lines.append("    )")
    lines.append("    if (( CURRENT == 2 )); then")
    lines.append("        _describe command commands")
    lines.append("        return")
    lines.append("    fi")
    lines.append("    shift words; (( CURRENT-- ))")
    lines.append('    case "$command" in')
    for command, (sub, _) in _commands(parser).items():
        lines.append(f"        {command}) _arguments \\")
        for action in _options_below(sub):
            for option in action.option_strings:
                text = _short(action).replace("[", "(").replace("]", ")").replace(":", "\\:")
                value = ""
                if _takes_value(action):
                    value = ":value:" + (f"({' '.join(map(str, action.choices))})" if action.choices else "_files")
                lines.append(f"            {_quote(f'{option}[{text}]{value}')} \\")
        positional = _positional_words(sub)
        rest = "" if positional is None else f"({' '.join(positional)})" if positional else "_files"
        lines.append(f"            {_quote(f'*:argument:{rest}')} ;;" if rest else "            && return ;;")
    lines += [
        "    esac",
        "}",
        "# Works both from a file on $fpath and when sourced.",
        f'if [ "$funcstack[1]" = "{name}" ]; then {name} "$@"; else compdef {name} {parser.prog}; fi',
    ]
    return "\n".join(lines) + "\n"


def _fish(parser: argparse.ArgumentParser) -> str:
    program = parser.prog
    commands = _commands(parser)
    lines = [f"# fish completion for {program}", f"complete -c {program} -f"]
    for command, (_, text) in commands.items():
        lines.append(f"complete -c {program} -n __fish_use_subcommand -a {command} -d {_quote(text)}")
    for command, (sub, _) in commands.items():
        after = f"complete -c {program} -n {_quote(f'__fish_seen_subcommand_from {command}')}"
        for action in _options_below(sub):
            names = " ".join(
                f"-l {option[2:]}" if option.startswith("--") else f"-s {option[1:]}"
                for option in action.option_strings
            )
            value = ""
            if _takes_value(action):
                value = f" -x -a {_quote(' '.join(map(str, action.choices)))}" if action.choices else " -r -F"
            lines.append(f"{after} {names}{value} -d {_quote(_short(action))}")
        positional = _positional_words(sub)
        if positional is not None:
            lines.append(f"{after} -a {_quote(' '.join(positional))}" if positional else f"{after} -F")
    return "\n".join(lines) + "\n"


def _short(action: argparse.Action) -> str:
    """The first clause of an option's help."""
    return re.split(r"[;(]|\. ", (action.help or "").replace("%%", "%"))[0].strip()


def _quote(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"

"""Command lines."""

from damaged.programs import run, TRAIN


def cases():
    for arguments in ([], ["--"], ["--", "x"], ["-"], ["x"], [""], ["--="], ["---"], ["--epochs"],
                      ["--epochs="], ["--epochs", ""], ["--epochs", "0"], ["--epochs", "-1"],
                      ["--epochs", "1e3"], ["--epochs", "99999999999999999999"], ["--epochs", "0x10"],
                      ["--epochs", " 5"], ["--epochs", "5 "], ["--lr", "nan"], ["--lr", "inf"],
                      ["--lr", "-1"], ["--lr", "1e999"], ["--lr", "1,5"], ["--memory-limit", "-1"],
                      ["--memory-limit", "1X"], ["--memory-limit", "99999999999G"],
                      ["--dataset", "cifar"], ["--dataset", "\x1b[31m\n"], ["--seed", "1" * 5000],
                      ["--" + "a" * 5000], ["--\x1b[31m\nb"], ["\x1b[31m\nb"], ["--help=x"],
                      ["--attention-stages", "0,,1"], ["--attention-stages", "99"],
                      ["--attention-stages", "0-3"], ["--no-augmentation=maybe"],
                      ["--resume", ""], ["--evaluate", ""], ["--dataset", "mnist", "--data-dir", ""]):
        run(f"options {[a[:20] for a in arguments]}", [TRAIN, *arguments], True)

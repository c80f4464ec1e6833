"""`voidvm vm …`: VMs of a service."""

from __future__ import annotations

import typer

from voidvm.cli.disk import change_iso
from voidvm.cli.vm import change, create, listing, power, watch

app = typer.Typer(help="Make, run and remove VMs.", no_args_is_help=True)
app.command("ls")(listing.list_vms)
app.command("create")(create.create_vm)
app.command("show")(listing.show_vm)
app.command("set", no_args_is_help=True)(change.set_vm)
app.command("start")(power.start_vms)
app.command("stop")(power.stop_vms)
app.command("restart")(power.restart_vms)
app.command("pause")(power.pause_vms)
app.command("resume")(power.resume_vms)
app.command("reset")(power.reset_vms)
app.command("rm")(power.remove_vms)
app.command("wait")(watch.wait_for_vm)
app.command("logs")(watch.show_logs)
app.command("send")(watch.send_text)
app.command("incidents")(watch.list_incidents)
app.command("iso")(change_iso)

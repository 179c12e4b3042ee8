"""What some settings of a supernet and of its search come to."""

from __future__ import annotations

from typing import Any

from nasjax.nets.supernet import Shared


def network_options(settings: Any, shared: Shared, space: str) -> dict[str, Any]:
    """Settings of `Shared.network` that only some spaces have. Raises ValueError where this one has not."""
    if settings.last_norms != "main" and not shared.two_norms:
        raise ValueError(
            "supernet.last_norms=both is for shuffle blocks, which end in two batch norms at stride 2; leave it main"
        )
    if settings.entangled and not shared.entangles:
        raise ValueError(
            f"supernet.entangled=true: --space={space} leaves no choice here (inverted residuals of choice_chain do); "
            "set supernet.entangled=false"
        )
    changed = {"last_norms": settings.last_norms != "main", "entangled": settings.entangled}
    return {name: getattr(settings, name) for name, other in changed.items() if other}
